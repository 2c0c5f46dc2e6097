//! Which variables of an environment are secrets, and how they are shown to people.
//!
//! It goes by names, by passwords in URLs, and by values that begin as keys of well-known services do. Too much that is
//! hidden costs a look with `--show-secrets`; too little costs a password in a bug report.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use regex::Regex;

use super::spec::AppSpec;

/// What stands in the place of a secret. Always as long, whatever is behind it.
pub const MASK: &str = "********";

/// A name with one of these anywhere in it is a secret's.
const PARTS: [&str; 9] = [
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "APIKEY",
    "ACCESSKEY",
    "PRIVATEKEY",
];

/// A name with one of these as a whole word is a secret's. `MONKEY`, `AUTHOR` and `COMPASS` are none.
const WORDS: [&str; 20] = [
    "PASS",
    "PW",
    "PWD",
    "KEY",
    "KEYS",
    "CREDS",
    "AUTH",
    "AUTHORIZATION",
    "OAUTH",
    "BEARER",
    "COOKIE",
    "COOKIES",
    "DSN",
    "JWT",
    "PRIVATE",
    "SALT",
    "SIGNATURE",
    "WEBHOOK",
    "CONNSTR",
    "CONNECTIONSTRING",
];

/// Names that look like a secret's and are not: folders, sockets, and what everybody may see.
const HARMLESS: [&str; 6] =
    ["PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "GPG_KEY_ID", "SSH_ASKPASS"];

/// How keys of well-known services begin, and private keys and signed tokens.
const BEGINNINGS: [&str; 16] = [
    "-----BEGIN ",
    "AKIA",
    "ASIA",
    "AIza",
    "Basic ",
    "Bearer ",
    "SG.",
    "eyJ",
    "gho_",
    "ghp_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "npm_",
    "sk_live_",
    "xox",
];

/// A password in a URL: what is between the user and the host.
static USERINFO: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@?#]*:)[^\s/?#]+@").ok()
});

/// Whether a variable of that name holds a secret, whatever its value.
pub fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    if HARMLESS.contains(&upper.as_str()) {
        return false;
    }
    let joined: String = upper.chars().filter(char::is_ascii_alphanumeric).collect();
    PARTS.iter().any(|part| joined.contains(part))
        || joined.ends_with("CONNECTIONSTRING")
        || words(name).iter().any(|word| WORDS.contains(&word.as_str()))
}

/// The value of a variable as it may be shown.
pub fn shown<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    // There is nothing to hide, and that it is empty may be what somebody looks for.
    if value.is_empty() {
        return Cow::Borrowed(value);
    }
    if is_secret_name(name) || begins_as_a_secret(value) {
        return Cow::Borrowed(MASK);
    }
    text(value)
}

/// A text, such as an argument or a line of a report, less the passwords in its URLs.
pub fn text(text: &str) -> Cow<'_, str> {
    match &*USERINFO {
        Some(userinfo) => userinfo.replace_all(text, format!("${{before}}{MASK}@")),
        None => Cow::Borrowed(MASK),
    }
}

/// An environment as it may be shown.
pub fn environment(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shown = |(name, value): (&String, &String)| (name.clone(), shown(name, value).into_owned());
    variables.iter().map(shown).collect()
}

/// Hides the secrets in the environment of a specification that is to be shown.
pub fn hide(spec: &mut AppSpec) {
    for variables in [&mut spec.env, &mut spec.inherited] {
        *variables = environment(variables);
    }
}

/// Command line arguments as they may be shown: without passwords in URLs, and without the value of an option whose name
/// is a secret's (`--password x`, `--token=x`).
pub fn arguments(args: &[String]) -> Vec<String> {
    let mut is_value = false;
    let shown = args.iter().map(|arg| {
        let was_value = std::mem::take(&mut is_value) && !arg.starts_with('-');
        if was_value && !arg.is_empty() {
            return MASK.to_owned();
        }
        let Some(option) = arg.strip_prefix('-') else { return masked(arg) };
        match option.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret_name(name) => {
                format!("-{name}={MASK}")
            }
            Some(_) => text(arg).into_owned(),
            None => {
                is_value = arg.starts_with("--") && is_secret_name(option);
                arg.clone()
            }
        }
    });
    shown.collect()
}

/// An argument that is no option: a secret by its looks, a `NAME=value`, or a text.
fn masked(arg: &str) -> String {
    if begins_as_a_secret(arg) {
        return MASK.to_owned();
    }
    match arg.split_once('=') {
        Some((name, value))
            if !value.is_empty()
                && name
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric() || character == '_')
                && is_secret_name(name) =>
        {
            format!("{name}={MASK}")
        }
        Some(_) | None => text(arg).into_owned(),
    }
}

fn begins_as_a_secret(value: &str) -> bool {
    // Shorter than any key there is: `sk_live_` itself, or a word.
    value.len() >= 16 && BEGINNINGS.iter().any(|beginning| value.starts_with(beginning))
}

/// `dbAuthURL` and `DB_AUTH_URL` are `DB`, `AUTH`, `URL`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for character in name.chars() {
        let begins = before.is_ascii_lowercase() && character.is_ascii_uppercase();
        if begins || !character.is_ascii_alphabetic() {
            words.push(String::new());
        }
        if character.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(character.to_ascii_uppercase());
        }
        before = character;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "DB_PASSWORD",
            "DB_PASS",
            "PGPASSWORD",
            "MYSQL_PWD",
            "API_KEY",
            "APIKEY",
            "apiKey",
            "STRIPE_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "NPM_AUTH",
            "npm_config__authToken",
            "SENTRY_DSN",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "COOKIE_SECRET",
            "JWT",
            "KEY",
            "SIGNING_KEYS",
            "KEY2",
            "SLACK_WEBHOOK_URL",
            "AZURE_STORAGE_CONNECTION_STRING",
            "dbAuth",
            "PASSPHRASE",
            "SESSION_SALT",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_look_like_it_are_shown() {
        for name in [
            "PATH",
            "PWD",
            "OLDPWD",
            "HOME",
            "PORT",
            "NODE_ENV",
            "KEYBOARD",
            "MONKEY",
            "AUTHOR",
            "GIT_AUTHOR_NAME",
            "COMPASS",
            "PASSENGER_APP",
            "SSH_AUTH_SOCK",
            "XDG_SESSION_ID",
            "HOSTNAME",
            "LANG",
            "TZ",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_hidden_and_the_rest_is_not() {
        let shown = |value| shown("DATABASE_URL", value).into_owned();
        assert_eq!(
            shown("postgres://web:s3cret@db:5432/app"),
            "postgres://web:********@db:5432/app"
        );
        assert_eq!(shown("redis://:pw@cache/0"), "redis://:********@cache/0");
        assert_eq!(
            shown("mysql://u:p@ss@h/d"),
            "mysql://u:********@h/d",
            "a password with an at sign"
        );
        assert_eq!(shown("http://localhost:8080/a@b"), "http://localhost:8080/a@b");
        assert_eq!(shown("http://host/"), "http://host/");
        let two = text("a://u:x@h, b://v:y@i").into_owned();
        assert_eq!(two, "a://u:********@h, b://v:********@i");
    }

    #[test]
    fn a_key_gives_itself_away_by_its_beginning() {
        assert_eq!(shown("X", "ghp_0123456789abcdef0123"), MASK);
        assert_eq!(shown("X", "-----BEGIN RSA PRIVATE KEY-----"), MASK);
        assert_eq!(shown("X", "eyJ"), "eyJ", "too short for one");
        assert_eq!(shown("DB_PASSWORD", ""), "", "there is nothing to hide");
    }

    #[test]
    fn a_specification_is_shown_without_secrets_wherever_they_come_from() {
        let mut spec = AppSpec::usual("web".parse().unwrap());
        let variables = |name: &str| BTreeMap::from([(name.to_owned(), "abc".to_owned())]);
        (spec.env, spec.inherited) = (variables("TOKEN"), variables("DB_PASSWORD"));
        hide(&mut spec);
        assert!(!serde_json::to_string(&spec).unwrap().contains("abc"));
    }

    #[test]
    fn arguments_that_are_secrets_are_hidden() {
        let shown = |line: &str| {
            let args: Vec<_> = line.split(' ').map(str::to_owned).collect();
            arguments(&args).join(" ")
        };
        assert_eq!(shown("app.js --port 80"), "app.js --port 80");
        assert_eq!(shown("--token abc -v"), "--token ******** -v");
        assert_eq!(shown("--api-key=abc"), "--api-key=********");
        assert_eq!(shown("--password --verbose x"), "--password --verbose x");
        assert_eq!(shown("DB_PASS=abc A=b"), "DB_PASS=******** A=b");
        assert_eq!(shown("--db x://u:p@h/"), "--db x://u:********@h/");
    }
}
