//! Reads a step's log as the runner reads it: which lines are commands, and what they say.

use std::collections::BTreeMap;

/// Commands that the runner knows. `set-env` and `add-path` are refused by it, and still are commands.
const KNOWN: [&str; 15] = [
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
];

/// A log, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Lines that are no commands, groups' content among them.
    pub(crate) lines: Vec<String>,
    /// What is shown on the run.
    pub(crate) annotations: Vec<Annotation>,
    /// Lines `warning: …` and `note: …`, by the level of an annotation. Another program's output has none.
    pub(crate) remarks: Vec<(String, String)>,
    /// Titles of groups.
    pub(crate) groups: Vec<String>,
    /// Values that are hidden.
    pub(crate) masks: Vec<String>,
    /// Commands that no action of ours has a reason for: somebody else's words.
    pub(crate) foreign: Vec<Command>,
    /// Groups that were not closed, and a stop that was not ended.
    pub(crate) open: Vec<String>,
    /// Everything as it came.
    pub(crate) raw: String,
}

/// What is shown on the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotation {
    /// `error`, `warning` or `notice`
    pub(crate) level: String,
    pub(crate) title: String,
    /// `file:line:column`, or nothing.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// A line that the runner obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) data: String,
}

impl Log {
    pub(crate) fn read(raw: &str) -> Log {
        let mut log = Log { raw: raw.to_owned(), ..Log::default() };
        let mut stopped: Option<String> = None;
        // A carriage return ends a line as well.
        for line in raw.replace("\r\n", "\n").split(['\n', '\r']) {
            match (Command::read(line, stopped.as_deref()), stopped.as_deref()) {
                (Some(command), Some(token)) if command.name == token => stopped = None,
                (Some(command), None) if command.name == "stop-commands" => stopped = Some(command.data),
                (Some(command), None) => log.obey(command),
                (_, stopped) => {
                    let levels = [("warning: ", "warning"), ("note: ", "notice")];
                    let remark = levels.iter().find_map(|(start, level)| Some((*level, line.strip_prefix(start)?)));
                    if let Some((level, message)) = remark.filter(|_| stopped.is_none()) {
                        log.remarks.push((level.to_owned(), message.to_owned()));
                    }
                    log.lines.push(line.to_owned());
                }
            }
        }
        log.lines.pop_if(|last| last.is_empty());
        log.open.extend(stopped.map(|token| format!("stop-commands {token}")));
        log
    }

    fn obey(&mut self, command: Command) {
        match command.name.as_str() {
            "error" | "warning" | "notice" => {
                let property = |name: &str| command.properties.get(name).cloned().unwrap_or_default();
                let place = [property("file"), property("line"), property("col")];
                let place: Vec<String> = place.into_iter().filter(|part| !part.is_empty()).collect();
                let (title, message) = (property("title"), command.data.clone());
                self.annotations.push(Annotation { level: command.name, title, place: place.join(":"), message });
            }
            "group" => {
                self.groups.push(command.data.clone());
                self.open.push(command.data);
            }
            "endgroup" => drop(self.open.pop()),
            "add-mask" => self.masks.push(command.data),
            _ => self.foreign.push(command),
        }
    }

    /// The messages of a level: annotations, and what a dry run only logs.
    pub(crate) fn messages(&self, level: &str) -> Vec<&str> {
        let of_level = self.annotations.iter().filter(|annotation| annotation.level == level);
        let logged = self.remarks.iter().filter(|(of, _)| of == level).map(|(_, message)| message.as_str());
        of_level.map(|annotation| annotation.message.as_str()).chain(logged).collect()
    }

    /// The messages of a level without those on the time of the images, which a checkout without a commit gets.
    pub(crate) fn of_template(&self, level: &str) -> Vec<&str> {
        let mut messages = self.messages(level);
        messages.retain(|message| !message.starts_with("the images get the "));
        messages
    }

    /// What a reader sees, with hidden values hidden.
    pub(crate) fn shown(&self) -> String {
        let annotations = self.annotations.iter().map(|annotation| &annotation.message);
        let mut text: String = self.lines.iter().chain(annotations).map(|line| format!("{line}\n")).collect();
        for mask in &self.masks {
            text = text.replace(mask.as_str(), "***");
        }
        text
    }
}

impl Command {
    /// Reads `::name k=v,k=v::data` at the start of a line, else `##[name k=v;k=v]data` anywhere in it.
    fn read(line: &str, stop_token: Option<&str>) -> Option<Command> {
        let known = |name: &str| KNOWN.contains(&name) || stop_token == Some(name);
        Self::current(line)
            .filter(|command| known(&command.name))
            .or_else(|| Self::older(line).filter(|command| known(&command.name)))
    }

    fn current(line: &str) -> Option<Command> {
        let (head, data) = line.trim_start().strip_prefix("::")?.split_once("::")?;
        Some(Self::of(head, ',', data, &[("%3A", ":"), ("%2C", ",")]))
    }

    fn older(line: &str) -> Option<Command> {
        let (_, rest) = line.split_once("##[")?;
        let (head, data) = rest.split_once(']')?;
        Some(Self::of(head, ';', data, &[("%3B", ";"), ("%5D", "]")]))
    }

    fn of(head: &str, separator: char, data: &str, of_properties: &[(&str, &str)]) -> Command {
        const OF_DATA: [(&str, &str); 2] = [("%0D", "\r"), ("%0A", "\n")];
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        let pairs = properties.trim().split(separator).filter_map(|pair| pair.split_once('='));
        let escapes: Vec<_> = OF_DATA.iter().chain(of_properties).copied().collect();
        let properties = pairs.map(|(key, value)| (key.trim().to_owned(), unescape(value, &escapes))).collect();
        Command { name: name.to_owned(), properties, data: unescape(data, &OF_DATA) }
    }
}

/// The percent sign comes last: what it escaped must not be taken for an escape.
fn unescape(text: &str, escapes: &[(&str, &str)]) -> String {
    let text = escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace("%25", "%")
}

#[test]
fn commands_are_found_where_the_runner_finds_them() {
    let log = Log::read(concat!(
        "plain\n",
        "::error file=a%2Cb.yaml,line=3,col=7,title=x%3Ay::50%25%0Aof\n",
        "  ::warning::indented\r\n",
        "before ##[set-output name=x;]evil\n",
        "not ::error::at the start\n",
        "::unknown::is text\n",
        "a\r::notice::after a carriage return\n",
        "::add-mask::hidden\n",
        "::group::title\n::stop-commands::token\n::error::fenced ##[add-path]/evil\n::token::\nhidden\n::endgroup::\n",
        "::group::open\n",
    ));
    let error = Annotation {
        level: "error".into(),
        title: "x:y".into(),
        place: "a,b.yaml:3:7".into(),
        message: "50%\nof".into(),
    };
    assert_eq!(log.annotations[0], error);
    assert_eq!(log.messages("warning"), ["indented"]);
    assert_eq!(log.messages("notice"), ["after a carriage return"]);
    assert_eq!(log.foreign.iter().map(|command| command.name.as_str()).collect::<Vec<_>>(), ["set-output"]);
    let lines = [
        "plain",
        "not ::error::at the start",
        "::unknown::is text",
        "a",
        "::error::fenced ##[add-path]/evil",
        "hidden",
    ];
    assert_eq!(log.lines, lines);
    assert_eq!((log.groups.len(), log.open), (2, vec!["open".to_owned()]));
    assert_eq!(Log::read("::stop-commands::t\n::error::x").open, ["stop-commands t"]);
    assert!(!Log::read("::add-mask::hunter2\na hunter2").shown().contains("hunter2"));
}
