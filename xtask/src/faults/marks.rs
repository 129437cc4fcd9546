//! Reads which faults a test is for: a comment `// Fault 7.` or `// Faults 1, 7.` right above its attributes.

/// A test and the faults that it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) faults: Vec<u32>,
    pub(crate) test: String,
}

/// The marks in a source.
///
/// # Errors
/// The line of a mark that is none, or stands above something else than a test that runs.
pub(crate) fn read(source: &str) -> Result<Vec<Mark>, String> {
    let mut marks = Vec::new();
    // In there every function becomes a test for each wire format.
    let makes_tests = source.contains("\nfor_each_format! {");
    let mut open: Option<Open> = None;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim();
        let fault = |what: &str| Err(format!("line {}: {what}", index + 1));
        if let Some(list) = line.strip_prefix("// Fault ").or_else(|| line.strip_prefix("// Faults ")) {
            let numbers = list.strip_suffix('.').map(|list| list.split(", ").map(str::parse).collect());
            let Some(Ok(faults)) = numbers else {
                return fault("a mark has the form `// Fault 7.` or `// Faults 1, 7.`");
            };
            if open.replace(Open { faults, tested: makes_tests, ignored: false }).is_some() {
                return fault("there are two marks above one test");
            }
        } else if let Some(mark) = &mut open {
            if line.starts_with("#[") {
                mark.tested |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                mark.ignored |= line.starts_with("#[ignore");
            } else if let Some(test) = name_of_function(line) {
                if !mark.tested || mark.ignored {
                    return fault(&format!("{test} is marked and is no test that runs"));
                }
                marks.extend(open.take().map(|mark| Mark { faults: mark.faults, test: test.to_owned() }));
            } else if !line.starts_with("//") {
                return fault("a mark stands right above a test, with nothing but attributes and comments between");
            }
        }
    }
    if open.is_some() { Err("the last line: a mark stands above no test".to_owned()) } else { Ok(marks) }
}

/// A mark whose test has not come yet.
struct Open {
    faults: Vec<u32>,
    tested: bool,
    ignored: bool,
}

fn name_of_function(line: &str) -> Option<&str> {
    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    name.split_once('(').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_belongs_to_the_test_below_it() {
        let source = "// Fault 7.\n#[test]\nfn one() {}\n\n/// Words.\n// Faults 1, 12.\n#[tokio::test(flavor = \"x\")]\n\
                      async fn two() {\n}\n#[test]\nfn unmarked() {}\n";
        let mark = |faults: &[u32], test: &str| Mark { faults: faults.to_vec(), test: test.to_owned() };
        assert_eq!(read(source), Ok(vec![mark(&[7], "one"), mark(&[1, 12], "two")]));
        let formats = "\nfor_each_format! {\n    // Fault 53.\n    async fn cut(format: Format) {\n";
        assert_eq!(read(formats), Ok(vec![mark(&[53], "cut")]));
    }

    #[test]
    fn a_mark_above_no_test_is_refused_with_its_line() {
        for (source, line) in [
            ("// Fault 7.\nfn no_test() {}\n", "line 2: no_test"),
            ("// Fault 7.\n#[test]\n#[ignore]\nfn no_run() {}\n", "line 4: no_run"),
            ("// Fault 7.\n\n#[test]\nfn apart() {}\n", "line 2: "),
            ("// Fault seven.\n#[test]\nfn f() {}\n", "line 1: "),
            ("// Fault 7.\n// Fault 8.\n#[test]\nfn f() {}\n", "line 2: "),
            ("x\n// Fault 7.\n", "the last line: "),
        ] {
            assert!(read(source).unwrap_err().starts_with(line), "{source:?}: {:?}", read(source));
        }
    }
}
