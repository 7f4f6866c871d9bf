//! Whether an attack arrived: what its requests were answered, and which answers it must have had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the attacker tells of one half.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    seconds: f64,
    /// Requests that went on although the attack had ended.
    unfinished: usize,
    attacks: BTreeMap<String, Attack>,
}

/// One attack.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    /// A status, with or without the name of its error, or a word of the attack.
    answers: BTreeMap<String, usize>,
    #[serde(skip_serializing)]
    rules: Vec<Rule>,
}

/// Answers that an attack must have had, or must not. A word stands for all answers that begin with
/// it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Rule {
    AtLeast {
        any: Vec<String>,
        #[serde(rename = "perMinute")]
        per_minute: f64,
    },
    Never {
        never: Vec<String>,
    },
    Only {
        only: Vec<String>,
    },
}

impl Told {
    /// Returns which rules were broken, in a few words each.
    pub(super) fn complaints(&self) -> Vec<String> {
        let minutes = self.seconds / 60.0;
        let of = |(name, attack): (&String, &Attack)| -> Vec<String> {
            let broken = attack.rules.iter().filter_map(|rule| rule.complaint(&attack.answers, minutes));
            broken.map(|complaint| format!("{name}: {complaint}")).collect()
        };
        let unfinished = (self.unfinished > 0)
            .then(|| format!("{} requests of the attacker did not end with it", self.unfinished));
        self.attacks.iter().flat_map(of).chain(unfinished).collect()
    }

    /// One line for each attack.
    pub(super) fn lines(&self) -> Vec<String> {
        let show = |attack: &Attack| {
            attack.answers.iter().map(|(answer, count)| format!("{answer}: {count}")).collect::<Vec<_>>()
        };
        self.attacks.iter().map(|(name, attack)| format!("{name}: {}", show(attack).join(", "))).collect()
    }
}

impl Rule {
    fn complaint(&self, answers: &BTreeMap<String, usize>, minutes: f64) -> Option<String> {
        let count = |words: &[String], is_wanted: bool| -> usize {
            let chosen = answers.iter().filter(|(answer, _)| is_among(answer, words) == is_wanted);
            chosen.map(|(_, count)| count).sum()
        };
        match self {
            Self::AtLeast { any, per_minute } => {
                // Even a short attack must arrive once.
                let wanted = (per_minute * minutes).floor().max(1.0);
                let had = count(any, true);
                let is_enough = f64::from(u32::try_from(had).unwrap_or(u32::MAX)) >= wanted;
                (!is_enough)
                    .then(|| format!("it did not arrive: {had} of {}, at least {wanted}", any.join(" or ")))
            }
            Self::Never { never } => {
                let had = count(never, true);
                (had > 0).then(|| format!("{had} of {}", never.join(" or ")))
            }
            Self::Only { only } => {
                let others = answers.keys().filter(|answer| !is_among(answer, only));
                let others: Vec<&str> = others.map(String::as_str).take(5).collect();
                let had = count(only, false);
                (had > 0).then(|| format!("{had} of others than {}: {}", only.join(", "), others.join(", ")))
            }
        }
    }
}

fn is_among(answer: &str, words: &[String]) -> bool {
    words.iter().any(|word| {
        answer.strip_prefix(word.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaints(answers: &Value, rule: &Value) -> Vec<String> {
        let attacks = json!({ "slow posts": { "answers": answers, "rules": [rule] } });
        let told = json!({ "seconds": 120.0, "unfinished": 0, "attacks": attacks });
        serde_json::from_value::<Told>(told).unwrap().complaints()
    }

    #[test]
    fn an_attack_must_get_the_answers_that_show_that_it_arrived() {
        let rule = json!({ "any": ["502", "504"], "perMinute": 10 });
        assert!(complaints(&json!({ "502 UpstreamFailure": 12, "504": 8 }), &rule).is_empty());
        let missing = complaints(&json!({ "502": 19, "401": 900, "5020": 900 }), &rule);
        assert_eq!(missing, ["slow posts: it did not arrive: 19 of 502 or 504, at least 20"]);
        assert_eq!(complaints(&json!({}), &json!({ "any": ["502"], "perMinute": 0.1 })).len(), 1);
    }

    #[test]
    fn an_answer_that_must_not_be_is_a_complaint() {
        let never = json!({ "never": ["dials"] });
        assert!(complaints(&json!({ "400": 3 }), &never).is_empty());
        assert_eq!(complaints(&json!({ "400": 3, "dials": 1 }), &never), ["slow posts: 1 of dials"]);
        let only = json!({ "only": ["400", "held"] });
        assert!(complaints(&json!({ "400 InvalidRequest": 3, "held": 1 }), &only).is_empty());
        assert_eq!(
            complaints(&json!({ "400 InvalidRequest": 3, "200 for x": 2 }), &only),
            ["slow posts: 2 of others than 400, held: 200 for x"]
        );
    }

    #[test]
    fn requests_that_go_on_are_a_complaint() {
        let told = Told { unfinished: 2, ..Told::default() };
        assert_eq!(told.complaints(), ["2 requests of the attacker did not end with it"]);
    }
}
