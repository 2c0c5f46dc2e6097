//! In which order apps are listed: `memory`, `cpu:desc`, …

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::api::message::AppView;

/// An order of apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    field: Field,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Name,
    Namespace,
    Pid,
    Status,
    Restarts,
    Cpu,
    Memory,
    Uptime,
}

const FIELDS: [(&str, Field); 9] = [
    ("id", Field::Id),
    ("name", Field::Name),
    ("namespace", Field::Namespace),
    ("pid", Field::Pid),
    ("status", Field::Status),
    ("restarts", Field::Restarts),
    ("cpu", Field::Cpu),
    ("memory", Field::Memory),
    ("uptime", Field::Uptime),
];

impl Sort {
    /// Puts apps into order; equal ones stay as they are, by id.
    pub(super) fn apply(self, apps: &mut [AppView]) {
        apps.sort_by(|a, b| {
            let order = self.field.compare(a, b);
            if self.descending { order.reverse() } else { order }
        });
    }
}

impl Field {
    fn compare(self, a: &AppView, b: &AppView) -> Ordering {
        let pid = |app: &AppView| app.workers.iter().find_map(|worker| worker.pid);
        match self {
            Self::Id => a.id.cmp(&b.id),
            Self::Name => a.name.cmp(&b.name),
            Self::Namespace => a.namespace.cmp(&b.namespace),
            Self::Pid => pid(a).cmp(&pid(b)),
            Self::Status => a.status.cmp(&b.status),
            Self::Restarts => a.restarts.cmp(&b.restarts),
            Self::Cpu => a.cpu_percent.total_cmp(&b.cpu_percent),
            Self::Memory => a.memory_bytes.cmp(&b.memory_bytes),
            Self::Uptime => a.uptime_ms.cmp(&b.uptime_ms),
        }
    }
}

impl FromStr for Sort {
    type Err = SortError;

    fn from_str(text: &str) -> Result<Self, SortError> {
        let (name, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let field = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
        let descending = match direction {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        };
        match (field, descending) {
            (Some(field), Some(descending)) => Ok(Self { field, descending }),
            (None, _) | (_, None) => Err(SortError),
        }
    }
}

/// Not an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SortError;

impl fmt::Display for SortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        write!(f, "expected {}, and after it :asc or :desc", names.join(", "))
    }
}

impl std::error::Error for SortError {}

#[cfg(test)]
mod tests {
    use super::{super::sample::app, *};

    #[test]
    fn apps_are_sorted_both_ways() {
        let mut apps = [app(), app(), app()];
        for (app, memory) in apps.iter_mut().zip([2, 3, 1]) {
            app.memory_bytes = memory;
        }
        let mut sorted = |text: &str| {
            text.parse::<Sort>().unwrap().apply(&mut apps);
            apps.iter().map(|app| app.memory_bytes).collect::<Vec<_>>()
        };
        assert_eq!(sorted("memory"), [1, 2, 3]);
        assert_eq!(sorted("memory:desc"), [3, 2, 1]);
        for text in ["", "size", "name:up", "name:"] {
            assert!(text.parse::<Sort>().is_err(), "{text}");
        }
    }
}
