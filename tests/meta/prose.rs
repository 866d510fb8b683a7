//! The rules of the prose, as far as a program can check them. Nothing here reads for sense.
//!
//! Each rule is seen to fail twice. The tests at the end plant a breach of each rule and expect to find it. On the pages
//! as they were before the rules, this file found 15 sentences of more than 40 words and 100 with a semicolon.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A doc line that begins so reads as half a sentence.
const FORBIDDEN: [&str; 6] = ["Whether", "Of", "As", "By", "So", "To"];
/// Other words that end in "s" and are no verbs in the third person.
const NO_VERBS: [&str; 6] = ["This", "Its", "Always", "Is", "Was", "Thus"];
/// Verbs that do not end in "s": a callback is described by when it is called.
const VERBS: [&str; 1] = ["Called"];
const MOST_WORDS: usize = 40;

// ---- Doc summaries ----

/// What a doc block belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    /// A public function or method. Its summary says what it does, so it begins with a verb in the third person.
    Function,
    /// Any other item: a type, a trait, a field, a variant, a constant, a module. Its summary says what it *is*, so it may
    /// be a noun phrase, as std has it ("A mutual exclusion primitive"). A verb would only ever be "Represents".
    Thing,
}

/// Returns what is wrong with the summaries of a source file, each with its line.
fn faulty_summaries(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let mut faults = Vec::new();
    let mut in_public_trait = false;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if line.starts_with("pub trait ") {
            in_public_trait = true;
        } else if line == "}" {
            in_public_trait = false;
        }
        let Some(summary) = doc_line(line) else {
            at += 1;
            continue;
        };
        let from = at;
        at += lines[at..].iter().take_while(|line| doc_line(line).is_some()).count();
        let Some(item) = documented(&lines[at..], in_public_trait) else { continue };
        let first = summary.split_whitespace().next().unwrap_or_default();
        let is_faulty = match item {
            Item::Function => !is_verb(first),
            Item::Thing => FORBIDDEN.contains(&first),
        };
        if is_faulty {
            faults.push(format!("{}: {summary}", from + 1));
        }
    }
    faults
}

/// Returns the text of a doc comment's line.
fn doc_line(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("///")?;
    (!text.starts_with('/')).then(|| text.trim())
}

fn is_verb(word: &str) -> bool {
    let word = word.trim_end_matches([':', ',']);
    let is_third_person = word.ends_with('s') && word.chars().all(char::is_alphabetic);
    let is_excluded = FORBIDDEN.contains(&word) || NO_VERBS.contains(&word);
    VERBS.contains(&word) || is_third_person && !is_excluded
}

/// Returns what the lines after a doc block declare. `None` for what is not public.
fn documented(after: &[&str], in_public_trait: bool) -> Option<Item> {
    let mut attribute = 0_usize;
    for line in after {
        let line = line.trim();
        // Attributes may stand between, over several lines.
        if attribute > 0 || line.starts_with("#[") {
            attribute += line.matches('[').count();
            attribute = attribute.saturating_sub(line.matches(']').count());
            continue;
        }
        if line.starts_with("//") || line.is_empty() {
            continue;
        }
        let declared = line.strip_prefix("pub ").unwrap_or(line);
        let declared =
            ["const ", "async ", "unsafe "].iter().fold(declared, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
        let is_public = line.starts_with("pub ") || in_public_trait;
        if declared.starts_with("fn ") {
            return is_public.then_some(Item::Function);
        }
        return (!line.starts_with("pub(")).then_some(Item::Thing);
    }
    None
}

#[test]
fn doc_summaries_begin_with_a_verb_in_the_third_person() {
    let mut faults = Vec::new();
    for file in files(&root().join("src"), "rs") {
        faults.extend(faulty_summaries(&read(&file)).into_iter().map(|fault| format!("{}:{fault}", shown(&file))));
    }
    assert!(faults.is_empty(), "{} summaries:\n{}", faults.len(), faults.join("\n"));
}

// ---- Sentences ----

/// The pages whose sentences are checked.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages = files(&root.join("src/docs"), "md");
    // Definitions for rustdoc, and no prose.
    pages.retain(|page| !page.ends_with("links.md"));
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "DESIGN.md", "SECURITY.md"] {
        pages.extend(Some(root.join(name)).filter(|page| page.exists()));
    }
    for folder in ["benches", "examples", "loom-tests"] {
        pages.extend(files(&root.join(folder), "md"));
    }
    pages
}

/// Splits a page into blocks of prose, each with its first line: paragraphs, list items, headings, cells of tables.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, String)> = None;
    let mut in_fence = false;
    for (at, line) in page.lines().enumerate() {
        let line = line.trim();
        let is_fence = line.starts_with("```");
        in_fence ^= is_fence;
        let is_cell = line.starts_with('|');
        let marker = list_marker(line);
        if is_fence || in_fence || is_cell || line.is_empty() || marker > 0 || is_definition(line) {
            blocks.extend(block.take());
        }
        if is_fence || in_fence || is_definition(line) {
            continue;
        }
        if is_cell {
            let cells = line.replace("\\|", " ");
            blocks.extend(cells.split('|').map(|cell| (at + 1, cell.trim().to_owned())));
            continue;
        }
        let text = line[marker..].trim();
        if !text.is_empty() {
            let (_, block) = block.get_or_insert_with(|| (at + 1, String::new()));
            block.push(' ');
            block.push_str(text);
        }
    }
    blocks.extend(block);
    blocks
}

/// Returns how long the marker of a heading, a list item or a quote is, at the begin of a line.
fn list_marker(line: &str) -> usize {
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_number = first.strip_suffix('.').is_some_and(|digits| digits.parse::<u32>().is_ok());
    let is_marker = ["-", "*", "+", ">"].contains(&first) || !first.is_empty() && first.chars().all(|c| c == '#');
    if is_number || is_marker { first.len() } else { 0 }
}

fn is_definition(line: &str) -> bool {
    line.starts_with('[') && line.contains("]: ")
}

/// Leaves only what is read aloud: a code span is one word, and a link is its text.
fn spoken(text: &str) -> String {
    let mut spans = text.split('`');
    let mut plain = spans.next().unwrap_or_default().to_owned();
    while let (Some(_code), Some(text)) = (spans.next(), spans.next()) {
        plain.push_str("code");
        plain.push_str(text);
    }
    for entity in ["&lt;", "&gt;", "&amp;", "&nbsp;"] {
        plain = plain.replace(entity, "");
    }
    let mut spoken = String::new();
    let mut rest = plain.as_str();
    while let Some((text, target)) = rest.split_once(']') {
        spoken.push_str(text);
        let end = match target.chars().next() {
            Some('(') => target.find(')'),
            Some('[') => target.find(']'),
            _ => None,
        };
        rest = end.map_or(target, |end| &target[end + 1..]);
    }
    spoken.push_str(rest);
    spoken.replace(['[', '*'], "")
}

fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for word in text.split_whitespace() {
        let sentence = sentences.last_mut().expect("there is one at least");
        sentence.push_str(word);
        sentence.push(' ');
        let word = word.trim_end_matches(['"', ')', '\'']);
        let is_short_form = word.ends_with("..") || ["e.g.", "i.e.", "vs."].contains(&word);
        if word.ends_with(['.', '?', '!']) && !is_short_form {
            sentences.push(String::new());
        }
    }
    sentences
}

/// Returns the sentences of a page that break the rules, each with its line.
fn faulty_sentences(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, block) in blocks(page) {
        for sentence in sentences(&spoken(&block)) {
            let words = sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
            if words > MOST_WORDS {
                faults.push(format!("{line}: {words} words: {sentence}"));
            }
            if sentence.contains(';') {
                faults.push(format!("{line}: a semicolon: {sentence}"));
            }
        }
    }
    faults
}

#[test]
fn sentences_are_short_and_have_no_semicolons() {
    let mut faults = Vec::new();
    for page in pages() {
        faults.extend(faulty_sentences(&read(&page)).into_iter().map(|fault| format!("{}:{fault}", shown(&page))));
    }
    assert!(faults.is_empty(), "{} sentences:\n{}", faults.len(), faults.join("\n"));
}

// ---- Links ----

/// Returns the targets of the links of a page that are files or headings, whether inline or defined.
fn targets(page: &str) -> Vec<String> {
    let prose = without_code(page);
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let defined = prose.lines().filter(|line| is_definition(line)).filter_map(|line| line.split_once("]: "));
    let targets = inline.chain(defined.map(|(_, target)| target));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// Leaves fences and code spans out.
fn without_code(page: &str) -> String {
    let mut in_fence = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        !is_fence && !in_fence
    });
    let prose: Vec<&str> = lines.collect();
    let prose = prose.join("\n");
    prose.split('`').step_by(2).collect()
}

/// Returns the anchor that both rustdoc and a repository's viewer give a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_fence = false;
    let headings = page.lines().filter(|line| {
        in_fence ^= line.starts_with("```");
        !in_fence && line.starts_with('#')
    });
    headings.map(anchor).collect()
}

/// Returns the links of a page that lead nowhere.
fn dead_links(page: &Path, text: &str) -> Vec<String> {
    let leads_somewhere = |target: &str| {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(file) };
        if heading.is_empty() || !path.exists() {
            return path.exists();
        }
        let there = if file.is_empty() { text.to_owned() } else { read(&path) };
        anchors(&there).contains(heading)
    };
    targets(text).into_iter().filter(|target| !leads_somewhere(target)).collect()
}

#[test]
fn links_lead_somewhere_in_a_viewer_of_files() {
    let mut faults = Vec::new();
    for page in pages() {
        faults.extend(dead_links(&page, &read(&page)).into_iter().map(|link| format!("{}: {link}", shown(&page))));
    }
    assert!(faults.is_empty(), "{} links lead nowhere:\n{}", faults.len(), faults.join("\n"));
}

/// What the guide defines for rustdoc, where the first definition of a label counts.
#[test]
fn links_of_the_guide_lead_to_the_same_place_in_rustdoc() {
    let links = read(&root().join("src/docs/links.md"));
    let for_rustdoc: BTreeSet<_> = links.lines().collect();
    let mut faults = Vec::new();
    for page in files(&root().join("src/docs"), "md").iter().filter(|page| !page.ends_with("links.md")) {
        let text = read(page);
        let definitions = text.lines().filter(|line| is_definition(line));
        for (label, target) in definitions.filter_map(|line| line.split_once("]: ")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let name = file.trim_end_matches(".md");
            let module = if INTERNALS.contains(&name) { "internals::" } else { "" };
            let hash = if heading.is_empty() { "" } else { "#" };
            let expected = format!("{label}]: crate::guide::{module}{name}{hash}{heading}");
            if !for_rustdoc.contains(expected.as_str()) {
                faults.push(format!("{}: links.md lacks {expected}", shown(page)));
            }
        }
        if text.contains("](crate::") {
            faults.push(format!("{}: an inline link that only rustdoc follows", shown(page)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const INTERNALS: [&str; 3] = ["orderings", "performance", "testing"];

/// A viewer of files shows the lines that rustdoc hides.
#[test]
fn programs_of_the_guide_have_no_hidden_lines() {
    for page in files(&root().join("src/docs"), "md") {
        let text = read(&page);
        let programs =
            text.split("\n```rust").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(program, _)| program);
        let hidden: Vec<&str> =
            programs.flat_map(str::lines).filter(|line| line.starts_with("# ") || *line == "#").collect();
        assert_eq!(hidden, [""; 0], "{}", shown(&page));
    }
}

// ---- Facts ----

/// Returns the message of every event and the name of every metric.
fn told(telemetry: &str) -> BTreeSet<String> {
    let literals = |text: &str| -> Vec<String> { text.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
    // The message is the last literal of an event.
    let events = telemetry.split("event!(").skip(1).filter_map(|rest| literals(in_brackets(rest)).pop());
    let is_metric =
        |text: &String| ["reaper_", "finalizer_", "livemark_"].iter().any(|prefix| text.starts_with(prefix));
    events.chain(literals(telemetry).into_iter().filter(is_metric)).collect()
}

/// Returns the text up to the bracket that closes one opened before it.
fn in_brackets(text: &str) -> &str {
    let mut depth = 1_usize;
    let end = text.find(|c| {
        depth = depth + usize::from(c == '(') - usize::from(c == ')');
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn the_page_on_operations_lists_every_event_and_every_metric() {
    let page = read(&root().join("src/docs/operations.md"));
    let missing: Vec<_> = told(&read(&root().join("src/telemetry.rs")))
        .into_iter()
        .filter(|text| !page.contains(&format!("`{text}`")))
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// An alert can be written before anything happened: each counter is registered at zero.
///
/// Seen to fail with a new `count!` that `register` did not have.
#[test]
fn every_counter_is_registered() {
    let telemetry = read(&root().join("src/telemetry.rs"));
    let (before, register) = telemetry.split_once("pub(crate) fn register(").expect("it is there");
    let names = |text: &str| -> BTreeSet<String> {
        let counted = text.split("count!(\"").skip(1).filter_map(|rest| rest.split_once('"'));
        counted.map(|(name, _)| name.to_owned()).collect()
    };
    let counted = names(before);
    assert!(counted.len() >= 7, "{counted:?}");
    let missing: Vec<_> = counted.iter().filter(|name| !register.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(names(register).is_empty(), "counters are reported above `register`");
}

/// The README and the guide draw one incident. The guide goes on where the README ends.
#[test]
fn the_readmes_drawing_is_the_beginning_of_the_guides() {
    let drawing = |page: &str| {
        let text = read(&root().join(page));
        let blocks = text.split("\n```text\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
        let drawn = blocks.map(|(block, _)| block).find(|block| block.contains("finalize_grace over"));
        drawn.map(str::to_owned).unwrap_or_else(|| panic!("{page} has no drawing of the incident"))
    };
    let readme = drawing("README.md");
    assert_eq!(drawing("src/docs/start.md").get(..readme.len()), Some(readme.as_str()));
}

// ---- Files ----

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("so can its entries").path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(self::files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

// ---- The rules catch what they are for ----

#[test]
fn a_summary_without_a_verb_is_found() {
    let method = |summary: &str| {
        faulty_summaries(&format!("    /// {summary}\n    #[must_use = \"a\n    b\"]\n    pub const fn f() {{}}\n"))
    };
    for good in ["Returns it.", "Called with it.", "Marks `job`.", "Beats: it made progress."] {
        assert_eq!(method(good), [""; 0]);
    }
    for bad in
        ["An empty registry.", "Whether it is.", "As it is.", "This returns it.", "[`mark`](f) owned.", "Return it."]
    {
        assert_eq!(method(bad), [format!("1: {bad}")]);
    }
    assert_eq!(faulty_summaries("/// Of a mark.\npub struct S;\n"), ["1: Of a mark."]);
    assert_eq!(faulty_summaries("/// A mark.\npub struct S;\n"), [""; 0], "a thing is a noun");
    assert_eq!(faulty_summaries("/// The hash.\npub(crate) fn f() {}\n"), [""; 0], "not public");
    assert_eq!(faulty_summaries("pub trait T {\n    /// The row.\n    fn row();\n}\n"), ["2: The row."]);
}

#[test]
fn a_long_sentence_and_a_semicolon_are_found() {
    let long = "word ".repeat(41);
    assert_eq!(faulty_sentences(&long).len(), 1);
    assert_eq!(faulty_sentences(&format!("| cell | {long} |")).len(), 1);
    assert_eq!(faulty_sentences(&format!("- {long}\n- {long}")).len(), 2);
    assert_eq!(faulty_sentences(&"word ".repeat(40)), [""; 0]);
    assert_eq!(faulty_sentences(&"One two three. ".repeat(20)), [""; 0]);
    assert_eq!(faulty_sentences("This is one;\nthis is another.").len(), 1);
    for code in ["```rust\nlet a = 1;\n```", "It has `a; b`\nand `c;`.", "| `mu.Lock(); go` | ArcSwap&lt;Map&gt; |"] {
        assert_eq!(faulty_sentences(code), [""; 0]);
    }
}

#[test]
fn a_dead_link_is_found() {
    let page = root().join("src/docs/start.md");
    let text = "# A `b` c\n[x](embedding.md#restart), [y](no.md), [z](embedding.md#no), [w](#a-b-c), `[v](no)`\n\n[u]: gone.md\n";
    assert_eq!(dead_links(&page, text), ["no.md", "embedding.md#no", "gone.md"]);
}

#[test]
fn events_and_metrics_are_found() {
    let source = "event!(WARN, job = %job, \"stale owner\");\nevent!(\n    $level,\n    run = f(x),\n    \"defer\"\n);\ncount!(\"reaper_x\", r);\n";
    let found: Vec<_> = told(source).into_iter().collect();
    assert_eq!(found, ["defer", "reaper_x", "stale owner"]);
}
