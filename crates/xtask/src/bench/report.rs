//! The table of a bench beside nginx, with the limits of `docs/speed.md`.

/// One line of the report.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) what: String,
    /// The measured figures, in words.
    pub(super) figures: String,
    /// The figure that is held to the goal.
    pub(super) value: f64,
    pub(super) goal: Goal,
}

/// The bounds of a figure: `must` is promised, `want` is aimed for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtMost {
        must: f64,
        want: f64,
    },
    AtLeast {
        must: f64,
        want: f64,
    },
    /// Printed without a bound.
    Shown,
}

impl Line {
    fn meets_must(&self) -> bool {
        match self.goal {
            Goal::AtMost { must, .. } => self.value <= must,
            Goal::AtLeast { must, .. } => self.value >= must,
            Goal::Shown => self.value.is_finite(),
        }
    }

    fn verdict(&self) -> String {
        let (meets_want, must, want, sign) = match self.goal {
            Goal::AtMost { must, want } => (self.value <= want, must, want, '≤'),
            Goal::AtLeast { must, want } => (self.value >= want, must, want, '≥'),
            Goal::Shown => return "as it is".to_owned(),
        };
        let word = if meets_want {
            "as wanted"
        } else if self.meets_must() {
            "met"
        } else {
            "MISSED"
        };
        format!("{word} (must {sign} {must}, want {sign} {want})")
    }
}

/// Prints the lines. Returns whether every "must" was met.
pub(super) fn print(lines: &[Line]) -> bool {
    println!();
    for line in lines {
        println!("{:<38} {:>8.2}  {:<38} {}", line.what, line.value, line.verdict(), line.figures);
    }
    lines.iter().all(Line::meets_must)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_must_is_told_from_a_missed_want() {
        let line = |value, goal| Line { what: String::new(), figures: String::new(), value, goal };
        let most = Goal::AtMost { must: 1.35, want: 1.15 };
        let least = Goal::AtLeast { must: 0.85, want: 0.95 };
        for (value, goal, meets, word) in [
            (1.1, most, true, "as wanted"),
            (1.2, most, true, "met"),
            (1.36, most, false, "MISSED"),
            (1.0, least, true, "as wanted"),
            (0.9, least, true, "met"),
            (0.8, least, false, "MISSED"),
            (f64::NAN, most, false, "MISSED"),
        ] {
            let line = line(value, goal);
            assert_eq!(line.meets_must(), meets, "{value}");
            assert!(line.verdict().starts_with(word), "{value}: {}", line.verdict());
        }
    }
}
