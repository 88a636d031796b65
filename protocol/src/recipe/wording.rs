//! What the TOML reader says, in words for authors: what stands there, and what to write instead.

use super::nearest::nearest;

/// What a field that is missing may look like; where it is a section, its heading.
const EXAMPLES: [(&str, &str); 16] = [
    ("recipe", "recipe = 1"),
    ("name", "name = \"mine\""),
    ("description", "description = \"what it makes\""),
    ("reproducible", "reproducible = true"),
    ("step", "[[step]]"),
    ("output", "[[output]]"),
    ("run", "run = [\"make\", \"-j{jobs}\"]"),
    ("path", "path = \"FILE\""),
    ("text", "text = \"what is in the file\""),
    ("hint", "hint = \"what to give with --source\""),
    ("type", "type = \"choice\", \"bool\", \"integer\", \"text\" or \"list\""),
    ("help", "help = \"what it changes\""),
    ("default", "default = …"),
    ("when", "when = [\"OPTION=VALUE\"]"),
    ("choices", "choices = [\"a\", \"b\"]"),
    ("expect", "expect = \"a text\""),
];

/// A sentence for what the reader says; what it says itself where nothing better is known.
pub(super) fn worded(message: &str) -> String {
    let message = message.trim();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let found_and_wanted = |message: &str| {
        let (found, wanted) = message.split_once(", expected ")?;
        Some(format!("{found} stands where {} belongs", belonging(found, wanted)))
    };
    let rest = |prefix: &str| message.strip_prefix(prefix);
    if let Some(rest) = rest("invalid type: ").or_else(|| rest("invalid value: ")) {
        return found_and_wanted(rest).unwrap_or_else(|| message.to_owned());
    }
    match quoted.as_slice() {
        [field] if message.starts_with("missing field ") => {
            let example = EXAMPLES.iter().find(|(name, _)| name == field).map(|(_, example)| *example);
            format!(
                "`{field}` is missing: write {}",
                example.map_or_else(|| format!("`{field} = …`"), |e| format!("`{e}`"))
            )
        }
        [written, known @ ..] if message.starts_with("unknown ") => match nearest(written, known.iter().copied()) {
            Some(meant) => format!("there is no `{written}` here; did you mean `{meant}`?"),
            None => format!("there is no `{written}` here: there are {}", known.join(", ")),
        },
        _ => message.to_owned(),
    }
}

/// What the reader calls by the names of Rust's types.
fn belonging(found: &str, wanted: &str) -> String {
    match wanted {
        "i64" | "u64" | "u32" | "usize" => "a whole number such as 2".to_owned(),
        "a boolean" => "`true` or `false`, without quotes,".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "a sequence" if found == "map" => {
            "a list of tables (a heading in double brackets, such as `[[step]]`)".to_owned()
        }
        "a sequence" => "a list such as `[\"a\", \"b\"]`".to_owned(),
        "a map" => "a table such as `{ true = [\"a\"] }`".to_owned(),
        wanted if wanted.starts_with("struct ") => "a table".to_owned(),
        wanted => wanted.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_is_put_into_words() {
        for (said, worded_as) in [
            ("invalid type: string \"0\", expected i64", "string \"0\" stands where a whole number such as 2 belongs"),
            (
                "invalid type: string \"true\", expected a sequence",
                "string \"true\" stands where a list such as `[\"a\", \"b\"]` belongs",
            ),
            (
                "invalid type: map, expected a sequence",
                "map stands where a list of tables (a heading in double brackets, such as `[[step]]`) belongs",
            ),
            (
                "invalid type: sequence, expected a map",
                "sequence stands where a table such as `{ true = [\"a\"] }` belongs",
            ),
            (
                "invalid type: string \"yes\", expected a boolean",
                "string \"yes\" stands where `true` or `false`, without quotes, belongs",
            ),
            ("missing field `run`", "`run` is missing: write `run = [\"make\", \"-j{jobs}\"]`"),
            ("missing field `step`", "`step` is missing: write `[[step]]`"),
            ("missing field `other`", "`other` is missing: write `other = …`"),
            ("unknown field `nam`, expected one of `recipe`, `name`", "there is no `nam` here; did you mean `name`?"),
            (
                "unknown variant `flag`, expected one of `choice`, `bool`",
                "there is no `flag` here: there are choice, bool",
            ),
            ("duplicate key", "duplicate key"),
        ] {
            assert_eq!(worded(said), worded_as);
        }
    }
}
