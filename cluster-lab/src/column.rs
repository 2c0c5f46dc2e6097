//! Columns of tables: what is shown of a run, and what it is called. Times are milliseconds.

use crate::results::Metric;

/// A name and what is under it.
pub type Column = (&'static str, Metric);

/// Requests answered in a second.
pub const THROUGHPUT: Column = ("req/s", |it| it.throughput);
/// Mean latency.
pub const MEAN: Column = ("mean", |it| it.latency.mean);
/// Its median.
pub const P50: Column = ("p50", |it| it.latency.p50);
/// What nine of ten stay below.
pub const P90: Column = ("p90", |it| it.latency.p90);
/// What 99 of 100 stay below.
pub const P99: Column = ("p99", |it| it.latency.p99);
/// What 999 of 1000 stay below.
pub const P999: Column = ("p99.9", |it| it.latency.p999);
/// The longest.
pub const MAX: Column = ("max", |it| it.latency.max);
