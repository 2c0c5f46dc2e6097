//! What the kernel's verifier makes of each program: how many instructions it has and how many are walked.

use aya_obj::{
    Object, ProgramSection,
    generated::{bpf_attach_type as attach, bpf_func_id, bpf_prog_type as program},
};
use cluster_common::{custom, names};
use serde::Serialize;

use super::{
    drain, ids, join, load,
    object::{Prepared, Wanted},
    room::Room,
    types,
};

/// Depth of a worker's cgroup, which changes nothing here.
const LEVEL: u32 = 2;

/// A program, as this kernel took it.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// `object/program`
    pub name: String,
    /// What it costs, or what the kernel said when it refused it.
    pub cost: Result<Cost, String>,
}

/// What a program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Instructions, as the kernel has rewritten them.
    pub instructions: u32,
    /// Instructions that the verifier walked over all paths; it gives up at a million (`BPF_COMPLEXITY_LIMIT_INSNS`).
    pub processed: u32,
    /// Most states that it kept at one time.
    pub states: u32,
}

/// Loads every program of every object, one by one, and lets go of it again.
///
/// # Errors
/// When an object is damaged, or has a program of a kind that nothing here loads.
pub fn programs() -> anyhow::Result<Vec<Measured>> {
    let _room = Room::make();
    let level = LEVEL.to_ne_bytes();
    let places = drain::places();
    // A kernel that does not describe its types cannot take the programs that look into them; any place is as good then.
    let places = places.unwrap_or_else(|_| vec![0; 16]);
    // The programs of groups do without, and are smaller then.
    let layout = load::places(types::layout().unwrap_or_default());
    let mut measured = measure("join", join::OBJECT, &[(names::WORKER_LEVEL, &level)])?;
    measured.extend(measure("select", load::SELECT, &[(names::LAYOUT, &layout)])?);
    measured.extend(measure("drain", drain::DRAIN, &[(names::TCP_SOCK, &places)])?);
    Ok(measured)
}

fn measure(object: &str, bytes: &[u8], globals: &[(&str, &[u8])]) -> anyhow::Result<Vec<Measured>> {
    let wanted = every(bytes)?;
    let name = |wanted: &Wanted| format!("{object}/{}", wanted.name);
    let mut prepared = Prepared::new(bytes, globals, &wanted)?;
    // What calls a user's program is measured without one: any number may be the answer.
    prepared.stand_in(custom::PICK, bpf_func_id::BPF_FUNC_get_prandom_u32 as i32);
    let counted = match prepared.count() {
        Ok(counted) => counted,
        Err(error) => {
            let refused = |wanted| Measured { name: name(wanted), cost: Err(format!("{error:#}")) };
            return Ok(wanted.iter().map(refused).collect());
        }
    };
    let cost = |(wanted, counted): (Wanted, std::io::Result<_>)| {
        let cost = counted.map_err(anyhow::Error::from).and_then(|(program, said): (_, String)| {
            let (processed, states) = walked(&said);
            let instructions = ids::Program::of(program)?.instructions;
            Ok(Cost { instructions, processed, states })
        });
        Measured { name: name(&wanted), cost: cost.map_err(|error| format!("{error:#}")) }
    };
    Ok(counted.into_iter().map(cost).collect())
}

/// Every program in an object, by name, for what its section says that it is.
fn every(bytes: &[u8]) -> anyhow::Result<Vec<Wanted>> {
    let object = Object::parse(bytes)?;
    let mut found: Vec<_> = object.programs.into_iter().collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
        .into_iter()
        .map(|(name, found)| {
            let Some((program_type, attach_type)) = kind(&found.section) else {
                anyhow::bail!("{name} is of a kind that is not measured yet");
            };
            let is_tracepoint = matches!(found.section, ProgramSection::BtfTracePoint);
            let target = if is_tracepoint { types::reads()? } else { 0 };
            let (program_type, attach_type) = (program_type as u32, attach_type as u32);
            // Kept for good: there are a dozen, and whoever measures ends soon.
            Ok(Wanted { name: name.leak(), program_type, attach_type, target })
        })
        .collect()
}

/// Type and attach type of the programs of a section, as the loaders of each object have them.
fn kind(section: &ProgramSection) -> Option<(program, attach)> {
    if let ProgramSection::SkReuseport { attach_type } = section {
        Some((program::BPF_PROG_TYPE_SK_REUSEPORT, (*attach_type).into()))
    } else if let ProgramSection::CgroupSockAddr { attach_type } = section {
        Some((program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, (*attach_type).into()))
    } else if let ProgramSection::CgroupSock { attach_type } = section {
        Some((program::BPF_PROG_TYPE_CGROUP_SOCK, (*attach_type).into()))
    } else if let ProgramSection::CgroupSkb { attach_type } = section {
        let attach_type = attach_type.map_or(attach::BPF_CGROUP_INET_INGRESS, Into::into);
        Some((program::BPF_PROG_TYPE_CGROUP_SKB, attach_type))
    } else if let ProgramSection::SockOps = section {
        Some((program::BPF_PROG_TYPE_SOCK_OPS, attach::BPF_CGROUP_SOCK_OPS))
    } else if let ProgramSection::BtfTracePoint = section {
        Some((program::BPF_PROG_TYPE_TRACING, attach::BPF_TRACE_RAW_TP))
    } else if let ProgramSection::SkMsg = section {
        Some((program::BPF_PROG_TYPE_SK_MSG, attach::BPF_SK_MSG_VERDICT))
    } else {
        None
    }
}

/// Instructions that the verifier walked, and the most states it kept, in its own words.
fn walked(said: &str) -> (u32, u32) {
    let mut words = said.split_whitespace();
    let mut number_after = |word: &str| {
        words.find(|other| *other == word)?;
        words.next()?.parse().ok()
    };
    // In this order (`print_verification_stats`).
    let processed = number_after("processed").unwrap_or_default();
    (processed, number_after("peak_states").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_measured() {
        let measured = programs().unwrap();
        for expected in [
            "select/cluster_select",
            "select/cluster_custom",
            "join/cluster_bind4",
            "drain/cluster_arrive",
        ] {
            let found = measured.iter().find(|program| program.name == expected);
            let found = found.unwrap_or_else(|| panic!("{expected} is not in {measured:?}"));
            let cost = found.cost.as_ref().unwrap();
            assert!(cost.processed >= cost.instructions / 4 && cost.states > 0, "{found:?}");
        }
    }

    #[test]
    fn the_verifiers_words_are_understood() {
        let said = "verification time 91 usec\nstack depth 24+0\nprocessed 1204 insns (limit 1000000) \
                    max_states_per_insn 4 total_states 71 peak_states 70 mark_read 12\n";
        assert_eq!(walked(said), (1204, 70));
        assert_eq!(walked(""), (0, 0));
    }
}
