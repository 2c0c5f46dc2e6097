//! What is counted, in the words of Prometheus and `OpenMetrics`.

mod catalogue;
mod classic;
mod samples;
#[cfg(test)]
mod tests;

pub(crate) use self::catalogue::document;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use self::catalogue::{CATALOGUE, Kind, Metric, Sample, Value};
use super::message::Snapshot;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own text format, which every reader knows.
    Classic,
    /// `OpenMetrics` 1.0, for those that ask for it.
    OpenMetrics,
}

impl Format {
    /// What a reader accepts, by its `Accept` header.
    pub(super) fn accepted(header: Option<&str>) -> Self {
        let asks = header.is_some_and(|types| types.contains("application/openmetrics-text"));
        if asks { Self::OpenMetrics } else { Self::Classic }
    }

    /// Its media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes down what is counted.
///
/// # Errors
/// Never, as far as is known: a text takes all that is written into it.
pub(super) fn render(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::Classic => classic::classic(&text),
        Format::OpenMetrics => text,
    })
}

/// One look at everything.
#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in CATALOGUE {
            let samples = (metric.samples)(&self.0);
            // What cannot be counted here is not there: zero would be a lie.
            if !samples.is_empty() {
                encode(metric, &samples, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn encode(
    metric: &Metric,
    samples: &[Sample],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let help = format!("{}.", metric.help);
    let mut family = encoder.encode_descriptor(metric.name, &help, unit.as_ref(), kind)?;
    for Sample { labels, value } in samples {
        if *value == Value::Info {
            family.encode_info(labels)?;
            continue;
        }
        if labels.is_empty() {
            encode_value(value, &mut family)?;
        } else {
            encode_value(value, &mut family.encode_family(labels)?)?;
        }
    }
    Ok(())
}

fn encode_value(value: &Value, one: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        Value::Count(count) => one.encode_counter::<NoLabelSet, _, f64>(count, None),
        Value::Amount(amount) => one.encode_counter::<NoLabelSet, _, f64>(amount, None),
        Value::Level(level) => one.encode_gauge(level),
        Value::Moment(moment) => one.encode_gauge(moment),
        Value::Buckets { sum, count, buckets } => {
            one.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
        }
        Value::Info => Ok(()),
    }
}
