//! Values of PM2's files whose words differ from the own ones.

use std::{path::Path, time::Duration};

use super::{
    super::tree::{Data, Node},
    words,
};
use crate::config::duration;

/// Makes a value of PM2 one of the key it becomes; none when it asks for nothing.
///
/// # Errors
/// A lowercase fragment that says what is wrong with the value.
pub(in crate::config::file) type Conversion = fn(&Node) -> Result<Option<Node>, String>;

/// A worker that is not ready by then has failed here, and is used all the same there: an app that was slow and worked
/// must not fail for it.
const SHORTEST_LISTEN_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn script(node: &Node) -> Result<Option<Node>, String> {
    match &node.data {
        Data::Text(text) if !text.trim().is_empty() => Ok(Some(node.clone())),
        Data::Text(_) => Err("is empty".to_owned()),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Table(_) => {
            Err(format!("is {}, not a text", node.kind()))
        }
    }
}

/// Arguments in one text are split the way PM2 does, which is not quite the shell's.
pub(super) fn words(node: &Node) -> Result<Option<Node>, String> {
    let list = match &node.data {
        Data::Text(text) => words::split(text).into_iter().map(Node::text).collect(),
        Data::List(_) => return Ok(Some(node.clone())),
        Data::Null => return Ok(None),
        Data::Number(number) => vec![Node::text(number.to_string())],
        Data::Bool(_) | Data::Table(_) => {
            return Err(format!("is {}, not a text or a list of texts", node.kind()));
        }
    };
    Ok(Some(Node::new(Data::List(list), node.place)))
}

/// `node@20.1.0` is the one that nvm has installed.
pub(super) fn interpreter(node: &Node) -> Result<Option<Node>, String> {
    let Some(version) = node.as_text().and_then(|text| text.strip_prefix("node@")) else {
        return Ok(Some(node.clone()));
    };
    let folder = std::env::var_os("NVM_DIR")
        .ok_or_else(|| format!("asks for Node {version} of nvm, and NVM_DIR is not set"))?;
    let version = version.trim_start_matches('v');
    let program = Path::new(&folder).join(format!("versions/node/v{version}/bin/node"));
    if !program.is_file() {
        return Err(format!("asks for Node {version}: nvm install {version} installs it"));
    }
    Ok(Some(Node::new(Data::Text(program.to_string_lossy().into_owned()), node.place)))
}

/// `NULL` is PM2's name for `/dev/null`; without a log file in one piece there is none.
pub(super) fn log_path(node: &Node) -> Result<Option<Node>, String> {
    match &node.data {
        Data::Null | Data::Bool(false) => Ok(None),
        Data::Text(text) if text == "NULL" => {
            Ok(Some(Node::new(Data::Text("/dev/null".to_owned()), node.place)))
        }
        Data::Bool(true) | Data::Text(_) => Ok(Some(node.clone())),
        Data::Number(_) | Data::List(_) | Data::Table(_) => {
            Err(format!("is {}, not a path", node.kind()))
        }
    }
}

/// `0` switches it off.
pub(super) fn cron(node: &Node) -> Result<Option<Node>, String> {
    match &node.data {
        Data::Number(number) if number.as_u64() == Some(0) => Ok(None),
        Data::Text(text) if text.trim() == "0" || text.is_empty() => Ok(None),
        Data::Null | Data::Bool(false) => Ok(None),
        Data::Text(_) => Ok(Some(node.clone())),
        Data::Bool(true) | Data::Number(_) | Data::List(_) | Data::Table(_) => {
            Err(format!("is {}, not a pattern of times", node.kind()))
        }
    }
}

pub(super) fn listen_timeout(node: &Node) -> Result<Option<Node>, String> {
    let text = match &node.data {
        Data::Number(number) => number.to_string(),
        Data::Text(text) => text.clone(),
        Data::Null => return Ok(None),
        Data::Bool(_) | Data::List(_) | Data::Table(_) => {
            return Err(format!("is {}, not a number of milliseconds", node.kind()));
        }
    };
    let time = duration::parse(&text).map_err(|error| error.to_string())?;
    let longer = time > SHORTEST_LISTEN_TIMEOUT;
    Ok(longer.then(|| Node::new(Data::Text(duration::format(time)), node.place)))
}
