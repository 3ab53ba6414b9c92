//! `baton man`: manual pages, a page for the program and one for each command, from the help texts themselves; and baton.toml(5), which is
//! the example that has every key.

use super::options::Options;
use super::out::{Failure, print};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io;
use std::path::Path;

/// Writes every page to the directory `out`, which is made if need be; without it, prints the page of the program.
pub(super) fn run(out: Option<&Path>) -> Result<(), Failure> {
    let mut pages = pages().map_err(|error| Failure::new(format!("cannot make the pages: {error}")))?;
    let Some(dir) = out else {
        return print(&pages.swap_remove(0).text);
    };
    let cannot = |what: &Path, error: io::Error| {
        Failure::new(format!(
            "cannot write {}: {error}; name a directory that this user may write to",
            what.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
    for page in pages {
        let path = dir.join(page.file);
        std::fs::write(&path, page.text).map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}

/// Every key with what it means and its default. That it is every key that the parser knows is tested beside the parser.
const CONFIGURATION: &str = include_str!("../../../examples/cluster.toml");

struct Page {
    /// Such as `baton-agent.1`.
    file: String,
    text: String,
}

/// The program's page, then those of its commands.
fn pages() -> io::Result<Vec<Page>> {
    let mut program = Options::command().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let pages = std::iter::once(&program).chain(commands).map(page);
    pages.chain([Ok(configuration())]).collect()
}

/// baton.toml(5): a section for each table.
fn configuration() -> Page {
    let mut text = format!(
        ".TH \"BATON.TOML\" \"5\" \"\" \"baton {}\" \"Baton\"\n.SH \"NAME\"\nbaton.toml \\- configuration of a Baton cluster\n\
         .SH \"DESCRIPTION\"\n",
        env!("CARGO_PKG_VERSION")
    );
    for paragraph in CONFIGURATION.split("\n\n") {
        let mut lines = paragraph.lines().map(|line| line.trim_start_matches("# "));
        if let Some(table) = lines.find(|line| line.starts_with('[') && line.ends_with(']')) {
            section(&mut text, table);
        }
        verbatim(&mut text, paragraph.lines());
        text.push_str(".PP\n");
    }
    text.push_str(".SH \"SEE ALSO\"\nbaton\\-agent(1), baton\\-check\\-config(1)\n");
    Page {
        file: "baton.toml.5".to_owned(),
        text,
    }
}

fn page(command: &Command) -> io::Result<Page> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let file = format!("{name}.1");
    let words = command
        .get_after_help()
        .map(|help| help.to_string())
        .unwrap_or_default();
    let man = Man::new(command.clone()).manual("Baton");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    // The generator would run the lines of the examples together.
    let mut text = String::from_utf8_lossy(&text).into_owned();
    text.push_str(&more(&words));
    Ok(Page { file, text })
}

/// What stands below the options. A paragraph that opens with a line such as "Examples:" becomes a section, line by line; one such
/// as "Exit status: 0 done" a section of running text.
fn more(words: &str) -> String {
    let mut text = String::new();
    for paragraph in words.split("\n\n") {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        if let Some(heading) = first.strip_suffix(':') {
            section(&mut text, heading);
            verbatim(&mut text, rest.lines().map(str::trim_start));
        } else if let Some((heading, begin)) = first.split_once(": ") {
            section(&mut text, heading);
            for line in std::iter::once(begin).chain(rest.lines()) {
                text.push_str(&format!("\\&{}\n", escape(line)));
            }
        } else {
            text.push_str(&format!(".PP\n{}\n", escape(paragraph)));
        }
    }
    text
}

/// Line by line, as it stands.
fn verbatim<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    text.push_str(".nf\n");
    for line in lines {
        text.push_str(&format!("\\&{}\n", escape(line)));
    }
    text.push_str(".fi\n");
}

fn section(text: &mut String, heading: &str) {
    let heading = match heading {
        "Example" => "EXAMPLES".to_owned(),
        other => other.to_uppercase(),
    };
    text.push_str(&format!(".SH \"{}\"\n", escape(&heading)));
}

/// Text as roff prints it unchanged (groff(7), "Escape sequences").
fn escape(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('"', "\\(dq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("man/man1");
        run(Some(&dir)).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
        for command in Options::command().get_subcommands() {
            let text = read(&format!("baton-{}.1", command.get_name()));
            assert!(text.contains(".SH \"EXAMPLES\""), "{text}");
            let shown = command.get_arguments().filter(|option| !option.is_hide_set());
            for option in shown.filter_map(|option| option.get_long()) {
                let option = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(text.contains(&option), "{command}: {option}");
            }
        }
        assert!(read("baton.1").contains("baton\\-switchover(1)"));
        let configuration = read("baton.toml.5");
        for text in [
            ".SH \"[CLUSTER]\"",
            ".SH \"[PROCESS]\"",
            "window = ",
            "stop_timeout",
        ] {
            assert!(configuration.contains(text), "{text}: {configuration}");
        }
    }

    #[test]
    fn words_for_people_stay_words_for_people() {
        let text = more("Examples:\n  baton drain b --x='y'\n\nExit status: 0 done; 1 not.");
        assert_eq!(
            text,
            ".SH \"EXAMPLES\"\n.nf\n\\&baton drain b \\-\\-x=\\(aqy\\(aq\n.fi\n\
             .SH \"EXIT STATUS\"\n\\&0 done; 1 not.\n"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_with_advice() {
        let failure = run(Some(Path::new("/dev/null/man"))).unwrap_err();
        assert!(failure.text.contains("may write to"), "{failure:?}");
    }
}
