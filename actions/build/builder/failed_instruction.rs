//! Finds the instruction that failed in a builder's log, with its last output.

use lifecycle::{SourceLocation, shortened};

use crate::dockerfile::{Dockerfile, Instruction};

/// How many of the last lines of a command's output are shown.
const LINES: usize = 5;

/// The most characters of a line, or of an instruction, that are shown.
const CHARACTERS: usize = 200;

/// An instruction that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedInstruction {
    /// Where it is.
    pub(crate) source_location: SourceLocation,
    /// The instruction, shortened.
    pub(crate) instruction: String,
    /// The last lines that it printed.
    pub(crate) output: Vec<String>,
}

impl FailedInstruction {
    fn new(dockerfile: &Dockerfile, instruction: &Instruction, output: &[&str]) -> Self {
        let words: Vec<&str> = instruction.arguments.text.split_whitespace().collect();
        let text = format!("{} {}", instruction.keyword, words.join(" "));
        let kept: Vec<String> = output.iter().map(|line| one_line(line)).filter(|line| !line.is_empty()).collect();
        Self {
            source_location: dockerfile.source_location(instruction.offset),
            instruction: one_line(&text),
            output: kept[kept.len().saturating_sub(LINES)..].to_vec(),
        }
    }
}

fn one_line(text: &str) -> String {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    shortened(&text, CHARACTERS)
}

/// Returns the instruction at the end of buildah's log, which repeats it on one line.
pub(super) fn in_buildah_log(log: &str, dockerfile: &Dockerfile) -> Option<FailedInstruction> {
    let lines: Vec<&str> = log.lines().collect();
    let failed = lines.iter().rposition(|line| {
        line.starts_with("Error: building at STEP ") || line.starts_with("Error: error building at STEP ")
    })?;
    let (begun, (stage, step, text)) =
        lines[..failed].iter().enumerate().rev().find_map(|(number, line)| Some((number, parse_step(line)?)))?;
    let is_noise = |line: &&&str| line.starts_with("subprocess exited with ") || line.starts_with("--> ");
    let output: Vec<&str> = lines[begun + 1..failed].iter().filter(|line| !is_noise(line)).copied().collect();
    // If the command printed nothing, buildah's own error is the cause: a missing file.
    let step_end = format!("{text}\": ");
    let error = lines[failed].split_once(&step_end).map(|(_, why)| why).filter(|_| output.is_empty());
    let output: Vec<&str> = output.into_iter().chain(error).collect();
    let of_stage = stages(dockerfile.instructions()).nth(stage)?;
    let is_it = |instruction: &&Instruction| normalized(&text).starts_with(&normalized(&instruction_text(instruction)));
    let numbered = of_stage.get(step).filter(|instruction| is_it(instruction));
    // `ONBUILD` instructions of a base image shift the numbers.
    let found = numbered.or_else(|| of_stage.iter().find(is_it))?;
    Some(FailedInstruction::new(dockerfile, found, &output))
}

/// Returns keyword and arguments without options, because options may contain names of this run.
fn instruction_text(instruction: &Instruction) -> String {
    if instruction.options.is_empty() {
        format!("{}{}", instruction.keyword, instruction.arguments.text)
    } else {
        instruction.keyword.to_owned()
    }
}

fn normalized(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Parses a line such as `[2/3] STEP 4/5: RUN make` into stage and step, counted from 0, and text.
fn parse_step(line: &str) -> Option<(usize, usize, String)> {
    let (stage, rest) = match line.strip_prefix('[') {
        Some(rest) => {
            let (numbers, rest) = rest.split_once("] ")?;
            (numbers.split_once('/')?.0.parse::<usize>().ok()?, rest)
        }
        None => (1, line),
    };
    let (numbers, text) = rest.strip_prefix("STEP ")?.split_once(": ")?;
    let step: usize = numbers.split_once('/')?.0.parse().ok()?;
    Some((stage.checked_sub(1)?, step.checked_sub(1)?, text.to_owned()))
}

/// Returns the instructions of each stage, beginning with its `FROM`.
fn stages(instructions: &[Instruction]) -> impl Iterator<Item = &[Instruction]> {
    let starts = instructions.iter().enumerate().filter(|(_, instruction)| instruction.keyword == "FROM");
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([instructions.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &instructions[start..end])
}

/// Returns the instruction at the end of BuildKit's plain log, which shows its lines in the file and repeats its output.
pub(super) fn in_buildkit_log(log: &str, dockerfile: &Dockerfile) -> Option<FailedInstruction> {
    let lines: Vec<&str> = log.lines().collect();
    let rule = |line: &str| line.len() >= 6 && line.bytes().all(|byte| byte == b'-');
    let (at, line) = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let (_, number) = line.rsplit_once(':')?;
        let number: usize = number.trim().parse().ok()?;
        lines.get(at + 1).is_some_and(|next| rule(next)).then_some((at, number))
    })?;
    let source_location = |instruction: &Instruction| dockerfile.source_location(instruction.offset).line;
    let instruction =
        dockerfile.instructions().iter().rev().find(|instruction| source_location(instruction) <= line)?;
    // ` > [2/2] RUN make:` and what it printed, between two rules.
    let begun = lines[..at].iter().rposition(|line| line.starts_with(" > ["));
    let output: Vec<&str> = match begun {
        Some(begun) => {
            lines[begun + 1..at].iter().take_while(|line| !rule(line)).map(|line| without_time(line)).collect()
        }
        None => Vec::new(),
    };
    let error = lines.iter().rev().find_map(|line| line.strip_prefix("ERROR: failed to solve: "));
    let output: Vec<&str> =
        if output.iter().all(|line| line.trim().is_empty()) { error.into_iter().collect() } else { output };
    Some(FailedInstruction::new(dockerfile, instruction, &output))
}

/// Removes the seconds at the beginning of a line of output.
fn without_time(line: &str) -> &str {
    let is_time = |word: &str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    line.trim_start().split_once(' ').filter(|(time, _)| is_time(time)).map_or(line, |(_, rest)| rest)
}
