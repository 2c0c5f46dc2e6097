//! From what was said about logs to what becomes of output.

use std::path::{Path, PathBuf};

use super::{
    date_format::DateFormat,
    definition::{
        self,
        logs::{LogTo, MaxAge, MaxSize},
        value::Switch,
    },
    refusal::Refusal,
    spec::logs::{Logs, Place, Rotation},
};

/// PM2's word for no file; `/dev/null` means the same.
const NULL: [&str; 2] = ["NULL", "/dev/null"];

/// Works out what was said about logs means, with paths that are relative to the app's folder.
///
/// # Errors
/// [`Refusal`] of what contradicts itself.
pub fn resolve(said: &definition::Logs, cwd: &Path) -> Result<Logs, Refusal> {
    let is_on = |switch: Option<Switch>, usual: bool| switch.map_or(usual, |Switch(on)| on);
    let usual = Rotation::default();
    let LogTo { file: to_file, service } =
        said.log_to.unwrap_or(LogTo { file: true, service: None });
    let files = [
        ("out_file", &said.out_file),
        ("error_file", &said.error_file),
        ("log_file", &said.log_file),
    ];
    for (key, file) in files {
        let Some(file) = file else { continue };
        if file.is_empty() || file.contains('\0') {
            return Err(Refusal::new(format!("{key} is no name of a file")).hint("NULL means none"));
        }
        if !to_file && !NULL.contains(&file.as_str()) {
            let to = said.log_to.map(|to| to.to_string()).unwrap_or_default();
            return Err(Refusal::new(format!("{key} is given, but log_to is {to}"))
                .hint(format!("--log-to file,{to} writes files too")));
        }
    }
    let time = is_on(said.time, false).then(DateFormat::usual);
    Ok(Logs {
        out: place(said.out_file.as_deref(), cwd),
        error: place(said.error_file.as_deref(), cwd),
        combined: match place(said.log_file.as_deref(), cwd) {
            Place::File(path) => Some(path),
            Place::Usual | Place::Nowhere => None,
        },
        merge: is_on(said.merge_logs, false),
        date_format: said.log_date_format.clone().or(time),
        shape: said.log_type.unwrap_or_default(),
        disabled: is_on(said.disable_logs, false),
        to_file,
        service,
        rotation: Rotation {
            max_size: said.log_max_size.map_or(usual.max_size, |MaxSize(size)| size),
            max_age: said.log_max_age.map_or(usual.max_age, |MaxAge(age)| age),
            keep: said.log_keep.unwrap_or(usual.keep),
            compress: is_on(said.log_compress, usual.compress),
        },
    })
}

fn place(file: Option<&str>, cwd: &Path) -> Place {
    match file {
        None => Place::Usual,
        Some(file) if NULL.contains(&file) => Place::Nowhere,
        Some(file) => Place::File(clean(&cwd.join(file))),
    }
}

/// The same path without `.` and doubled slashes.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(said: serde_json::Value) -> Result<Logs, Refusal> {
        resolve(&serde_json::from_value(said).unwrap(), Path::new("/srv/app"))
    }

    #[test]
    fn nothing_said_is_the_usual() {
        assert_eq!(resolved(json!({})).unwrap(), Logs::default());
    }

    #[test]
    fn files_are_where_the_app_is_or_nowhere() {
        let said = json!({ "out_file": "./logs//out.log", "error_file": "NULL", "log_file": "/x/all.log" });
        let logs = resolved(said).unwrap();
        assert_eq!(logs.out, Place::File("/srv/app/logs/out.log".into()));
        assert_eq!(logs.error, Place::Nowhere);
        assert_eq!(logs.combined, Some("/x/all.log".into()));
        assert_eq!(resolved(json!({ "log_file": "/dev/null" })).unwrap(), Logs::default());
    }

    #[test]
    fn a_given_format_goes_before_the_usual_one() {
        let format = |said| resolved(said).unwrap().date_format.map(|format| format.to_string());
        assert_eq!(format(json!({ "time": true })).unwrap(), "YYYY-MM-DDTHH:mm:ss");
        assert_eq!(format(json!({ "time": true, "log_date_format": "HH:mm" })).unwrap(), "HH:mm");
        assert_eq!(format(json!({ "time": false })), None);
    }

    #[test]
    fn a_file_that_nothing_would_go_to_is_refused() {
        let error = resolved(json!({ "out_file": "a.log", "log_to": "journald" })).unwrap_err();
        assert!(error.message.contains("log_to is journald"), "{}", error.message);
        assert!(error.hint.unwrap().contains("file,journald"));
        assert!(resolved(json!({ "out_file": "" })).is_err());
    }
}
