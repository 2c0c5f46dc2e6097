//! Presets: experiments that are ready.

use crate::{experiment::Experiment, nearest, refusal::Refusal};

/// An experiment that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As the command line says it.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The experiment.
    pub toml: &'static str,
}

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "tail",
        about: "latency against load, with exponential and lognormal service times",
        toml: include_str!("presets/tail.toml"),
    },
    Preset {
        name: "frozen",
        about: "one of four workers stands still for 3 s",
        toml: include_str!("presets/frozen.toml"),
    },
    Preset {
        name: "bimodal",
        about: "one request in 200 takes a hundred times as long",
        toml: include_str!("presets/bimodal.toml"),
    },
    Preset {
        name: "reload",
        about: "all workers are replaced under load, over new and over kept connections",
        toml: include_str!("presets/reload.toml"),
    },
    Preset {
        name: "scale",
        about: "cheap uniform work, with more and more workers",
        toml: include_str!("presets/scale.toml"),
    },
    Preset {
        name: "overload",
        about: "twice as many requests as can be served, with and without --shed",
        toml: include_str!("presets/overload.toml"),
    },
    Preset {
        name: "affinity",
        about: "workers with a CPU each, and many clients: by address and by CPU",
        toml: include_str!("presets/affinity.toml"),
    },
];

/// One of them by its name.
///
/// # Errors
/// When there is none: with the nearest.
pub fn named(name: &str) -> Result<&'static Preset, Refusal> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Refusal::usage(format!("`{name}` is no preset")).hint(nearest::hint(name, &names))
    })
}

impl Preset {
    /// Its experiment.
    ///
    /// # Errors
    /// Never, if the tests pass.
    pub fn experiment(&self) -> Result<Experiment, Refusal> {
        Experiment::parse(self.toml, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_possible_and_so_is_its_quick_form() {
        for preset in PRESETS {
            let experiment = preset.experiment().unwrap();
            assert_eq!(experiment.name, preset.name);
            experiment.check().unwrap();
            experiment.quick().check().unwrap();
        }
    }

    #[test]
    fn a_slip_is_corrected() {
        let refused = named("frozn").unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("did you mean `frozen`?"));
    }
}
