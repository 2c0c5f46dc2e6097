//! Who may come in: HTTP's basic authentication (RFC 7617).

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::{Choice, ConstantTimeEq as _};

/// The one name and password that are let in.
#[derive(Clone)]
pub struct Guard {
    username: String,
    password: String,
}

impl Guard {
    /// Lets in who knows both.
    pub fn new(username: String, password: String) -> Self {
        Self { username, password }
    }

    /// Whether a request comes from somebody who knows them. How long that takes tells nothing of either but its
    /// length.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((username, password)) = credentials(headers) else { return false };
        let known: Choice = self.username.as_bytes().ct_eq(username.as_bytes())
            & self.password.as_bytes().ct_eq(password.as_bytes());
        known.into()
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    // A password may have colons, a name may not.
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_name_with_the_right_password_comes_in() {
        let guard = Guard::new("ada".to_owned(), "a:b".to_owned());
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            guard.admits(&headers)
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(admits(&basic("ada:a:b")));
        assert!(admits(&basic("ada:a:b").replace("Basic", "bAsIc")));
        for wrong in ["ada:a", "ada:", "ad:a:b", "", ":", "ada"] {
            assert!(!admits(&basic(wrong)), "{wrong}");
        }
        for wrong in ["Basic", "Basic ????", "Bearer x", ""] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!guard.admits(&HeaderMap::new()));
        assert_eq!(format!("{guard:?}"), "Guard", "a password is not for logs");
    }
}
