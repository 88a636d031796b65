//! The page for authors says what is so: its recipes are recipes, its mistakes are told as it shows them, and it names every key.

use super::*;

const PAGE: &str = include_str!("../../../../node/recipes/README.md");

/// The blocks of the page between its fences: what stands behind the opening fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut fenced = PAGE.split("\n```").skip(1).step_by(2);
    let mut blocks = Vec::new();
    while let Some((word, text)) = fenced.next().and_then(|block| block.split_once('\n')) {
        blocks.push((word, text));
    }
    blocks
}

/// Where a part of a recipe stands in a whole one.
fn around(part: &str) -> String {
    let (top, below) = if part.starts_with('[') { ("", part) } else { (part, "") };
    format!(
        "recipe = 1\nname = \"part\"\ndescription = \"Around a part\"\nreproducible = true\n{top}\n\
         [option.who]\ntype = \"text\"\nhelp = \"who\"\npattern = \"[a-z]{{1,9}}\"\ndefault = \"you\"\n\
         [option.debug]\ntype = \"bool\"\nhelp = \"debug\"\ndefault = false\nwords = {{ true = [\"-g\"] }}\n\
         [[file]]\npath = \"a\"\ntext = \"a\"\n[[step]]\nrun = [\"cp\", \"a\", \"{{who}}\", \"{{debug}}\"]\n\
         [[output]]\npath = \"a\"\n{below}"
    )
}

#[test]
fn every_recipe_of_the_page_is_read_and_every_mistake_told_as_shown() {
    let blocks = blocks();
    let mut seen = BTreeMap::new();
    for (at, (word, text)) in blocks.iter().enumerate() {
        *seen.entry(*word).or_insert(0) += 1;
        match *word {
            "toml" => drop(Recipe::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))),
            "toml part" => drop(Recipe::parse(&around(text)).unwrap_or_else(|error| panic!("{error}\n{text}"))),
            "toml wrong" => {
                let told: Vec<String> =
                    Recipe::parse_all(text).unwrap_err().iter().map(RecipeError::to_string).collect();
                assert_eq!(blocks[at + 1], ("text", told.join("\n").as_str()));
            }
            "text" | "sh" => {}
            other => panic!("a block of an unknown sort: {other:?}"),
        }
    }
    assert_eq!((seen["toml"], seen["toml part"], seen["toml wrong"]), (1, 3, 2));
}

#[test]
fn the_example_runs_what_the_page_says() {
    let blocks = blocks();
    let at = blocks.iter().position(|(word, _)| *word == "toml").unwrap();
    let recipe = Recipe::parse(blocks[at].1).unwrap();
    let Plan { steps, .. } = planned(&recipe, &[("opt", "3"), ("modules", "io,jit")], 4);
    let lines: Vec<String> = steps.iter().map(|step| step.argv.join(" ")).collect();
    assert_eq!(blocks[at + 1], ("text", lines.join("\n").as_str()));
    let env = [("CFLAGS", "-O3"), ("JIT_BACKEND", "x86"), ("LC_NUMERIC", "C")];
    let env: BTreeMap<String, String> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert!(steps.iter().all(|step| step.env == env), "{steps:?}");

    let clash = recipe.resolve(&given(&[("modules", "io,jit"), ("opt", "1")])).unwrap_err();
    assert!(PAGE.contains(&format!("\nerror: {clash}\n")), "{clash}");
}

#[test]
fn the_page_names_every_key() {
    let keys = |text: &str| {
        let error = Recipe::parse(text).unwrap_err().to_string();
        let (_, known) = error.split_once(": there are ").unwrap_or_else(|| panic!("{error}"));
        known.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    for (section, text) in [
        ("### At the top", "recipe = 1\nzz = 1".to_owned()),
        ("### `[source]`", "recipe = 1\n[source]\nzz = 1".to_owned()),
        ("### `[[file]]`", "recipe = 1\n[[file]]\nzz = 1".to_owned()),
        ("### `[option.NAME]`", "recipe = 1\n[option.x]\nzz = 1".to_owned()),
        ("### `[[variant]]`", "recipe = 1\n[[variant]]\nzz = 1".to_owned()),
        ("### `[[step]]`", "recipe = 1\n[[step]]\nzz = 1".to_owned()),
        ("### `[[output]]`", "recipe = 1\n[[output]]\nzz = 1".to_owned()),
        ("### `[limits]`", "recipe = 1\n[limits]\nzz = 1".to_owned()),
    ] {
        let begins = PAGE.find(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{section}")) + 1;
        let ends = PAGE[begins + 4..].find("\n#").map_or(PAGE.len(), |at| begins + 4 + at);
        let described = &PAGE[begins..ends];
        for key in keys(&text) {
            let has_section = ["option", "source", "file", "variant", "step", "output", "smoke", "limits"];
            let is_section = section == "### At the top" && has_section.contains(&key.as_str());
            assert!(is_section || described.contains(&format!("`{key}`")), "{section} does not describe `{key}`");
        }
    }
}

#[test]
fn the_bounds_on_the_page_are_those_of_the_language() {
    let bounds = format!(
        "a recipe of {} KiB, {MAX_OPTIONS} options of {MAX_CHOICES} values, {MAX_STEPS} steps of {MAX_WORDS} words, \
         {MAX_VARIANTS} variants, {MAX_OUTPUTS} outputs, {MAX_FILES} files.",
        MAX_RECIPE_BYTES >> 10
    );
    let page = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        bounds,
        format!("grow beyond {} KiB", MAX_STEP_BYTES >> 10),
        format!("the values of all options not beyond {} KiB", MAX_SETTINGS_BYTES >> 10),
        format!("Without it {DEFAULT_SOURCE_DATE_EPOCH},"),
        format!("From {MIN_SOURCE_DATE_EPOCH} (1980) to {MAX_SOURCE_DATE_EPOCH} (2100)"),
        format!("at most {} |", MAX_TIME.as_millis() / 1_000),
    ] {
        assert!(page.contains(&said), "{said}");
    }
}
