//! The frame of the few web pages the server shows itself. No external resources.

/// A page with this title and body (HTML).
#[must_use]
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em;color:#222;background:#fff}}\
         button,input{{font:inherit;padding:.4em .8em}}.error{{color:#a00}}\
         @media(prefers-color-scheme:dark){{body{{color:#eee;background:#181818}}a{{color:#8cf}}.error{{color:#f88}}}}\
         </style></head><body>{body}</body></html>"
    )
}

/// Text as HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
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
