//! The laboratory: what policies do for clients, measured with real workers under a load that is known.
//!
//! Modules in reading order. An [`experiment`] is a [`matrix`] of [`point`]s; each is a run in an [`arena`] of its
//! own, where a [`group`] of workers is asked by the [`generator`] while a [`fault`] happens to it.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures here have less than fifteen digits and are never negative"
)]

pub mod refusal;
mod nearest;
mod words;
mod input;
pub mod span;
pub mod distribution;
pub mod arrival;
pub mod fault;
pub mod contender;
pub mod experiment;
pub mod point;
pub mod matrix;
pub mod outcome;
pub mod verdict;
pub mod worker;
mod generator;
mod group;
pub mod arena;
pub mod drive;
pub mod machine;
pub mod run;
pub mod results;
pub mod column;
pub mod statistics;
pub mod compare;
pub mod table;
pub mod report;
pub mod preset;
