//! The list of a folder, as a page.

use std::{fmt::Write as _, fs, io, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::place::is_shown;

/// A folder with more is shown in part.
const MOST: usize = 10_000;
/// What needs no escape in a path (RFC 3986, `unreserved`).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A page with a link for each file and folder in `folder`, which is `path` to the one who asks.
///
/// # Errors
/// When it cannot be read.
pub(super) fn page(folder: &Path, path: &str) -> io::Result<String> {
    let mut entries: Vec<(bool, String)> = Vec::new();
    for entry in fs::read_dir(folder)?.take(MOST) {
        let entry = entry?;
        // A name that is no UTF-8 text cannot be asked for.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_shown(&name) {
            let is_file = !entry.path().is_dir();
            entries.push((is_file, name));
        }
    }
    entries.sort();
    let title = html(&percent_encoding::percent_decode_str(path).decode_utf8_lossy());
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    if path != "/" {
        page.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (is_file, name) in entries {
        let slash = if is_file { "" } else { "/" };
        let link = utf8_percent_encode(&name, ESCAPED);
        // A name such as `a:b` would be a scheme without the dot.
        let _infallible =
            writeln!(page, "<li><a href=\"./{link}{slash}\">{}{slash}</a>", html(&name));
    }
    page.push_str("</ul>\n");
    Ok(page)
}

fn html(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_into_the_page() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["<script>", "a b", ".env", "c:d"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("z")).unwrap();
        let page = page(folder.path(), "/%3Cx%3E/").unwrap();
        assert!(!page.contains("<script>") && !page.contains("<x>"), "{page}");
        assert!(page.contains("./%3Cscript%3E") && page.contains("./a%20b"), "{page}");
        assert!(page.contains("\"./c%3Ad\"") && page.contains("../"), "{page}");
        assert!(!page.contains(".env"), "{page}");
        assert!(page.find("z/").unwrap() < page.find("a b").unwrap(), "folders come first");
    }
}
