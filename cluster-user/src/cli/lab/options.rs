//! What an experiment is changed by on the command line.

use clap::Args;
use cluster_lab::{
    contender::Contender,
    distribution::Service,
    experiment::{Experiment, OVERLOAD},
    fault::Fault,
    refusal::Refusal,
    span::Span,
};

/// Options that go over what the file says: each list replaces that of the file.
#[derive(Args, Debug)]
pub(super) struct Changes {
    /// Policies to compare: none, shared, plain, default, round-robin, least-conn, …
    #[arg(long = "policy", value_name = "POLICY", value_delimiter = ',', value_parser = word::<Contender>)]
    policies: Vec<Contender>,

    /// Numbers of workers
    #[arg(long, value_name = "N", value_delimiter = ',')]
    workers: Vec<u32>,

    /// Loads, as shares of what all workers can serve
    #[arg(long, value_name = "SHARE", value_delimiter = ',', conflicts_with = "rate")]
    load: Vec<f64>,

    /// Loads in requests per second
    #[arg(long, value_name = "N", value_delimiter = ',')]
    rate: Vec<f64>,

    /// Service times, such as `bimodal 1ms 100ms 0.5%`
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = word::<Service>)]
    service: Vec<Service>,

    /// What happens meanwhile, such as `freeze worker=0 at=1s for=3s`
    #[arg(long, value_name = "FAULT", value_delimiter = ',', value_parser = word::<Fault>)]
    fault: Vec<Fault>,

    /// Requests per connection
    #[arg(long, value_name = "N", value_delimiter = ',')]
    reuse: Vec<u32>,

    /// Seeds of the arrivals
    #[arg(long = "seed", value_name = "N", value_delimiter = ',')]
    seeds: Vec<u64>,

    /// How long each point is measured
    #[arg(long, value_name = "TIME", value_parser = word::<Span>)]
    duration: Option<Span>,

    /// How long each point is not measured before
    #[arg(long, value_name = "TIME", value_parser = word::<Span>)]
    warmup: Option<Span>,

    /// A server of your own instead of the laboratory's: a command line
    #[arg(long, value_name = "COMMAND")]
    app: Option<String>,

    /// What it is asked; {us} becomes the service time in microseconds
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// Where the workers serve
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Loads above 1 are meant
    #[arg(long)]
    overload: bool,
}

impl Changes {
    /// A refusal, with hints in words of the command line when it was there that it was said.
    pub(super) fn reword(is_load_said: bool, mut refusal: Refusal) -> Refusal {
        if is_load_said && refusal.hint.as_deref() == Some(OVERLOAD) {
            refusal.hint = Some("--overload when it is meant".to_owned());
        }
        refusal
    }

    /// Whether loads were said.
    pub(super) fn says_load(&self) -> bool {
        !self.load.is_empty()
    }

    /// The experiment with all that was said.
    pub(super) fn apply(self, it: &mut Experiment) {
        replace(&mut it.policies, self.policies);
        replace(&mut it.workers, self.workers);
        if !self.load.is_empty() {
            it.rate.clear();
        }
        replace(&mut it.load, self.load);
        replace(&mut it.rate, self.rate);
        replace(&mut it.service, self.service);
        replace(&mut it.fault, self.fault);
        replace(&mut it.reuse, self.reuse);
        replace(&mut it.seeds, self.seeds);
        it.duration = self.duration.unwrap_or(it.duration);
        it.warmup = self.warmup.unwrap_or(it.warmup);
        it.app = self.app.or(it.app.take());
        it.path = self.path.unwrap_or_else(|| std::mem::take(&mut it.path));
        it.port = self.port.unwrap_or(it.port);
        it.overload |= self.overload;
    }
}

fn replace<T>(list: &mut Vec<T>, said: Vec<T>) {
    if !said.is_empty() {
        *list = said;
    }
}

/// A word of the experiment; its hint goes with what is wrong with it.
fn word<T: std::str::FromStr<Err = Refusal>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|refusal: Refusal| match refusal.hint {
        Some(hint) => format!("{} ({hint})", refusal.message),
        None => refusal.message,
    })
}
