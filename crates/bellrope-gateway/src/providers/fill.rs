//! Filling in the middle: the templates of the usual local models, for servers that continue a prompt and know no suffix.

use serde::{Deserialize, Serialize};

use crate::message::{ChatRequest, Prompt};

/// How a prompt with a suffix is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// As `suffix`: the server knows the model's template.
    Server,
    /// In the template that the model's name tells, if it tells one.
    Auto,
    /// Qwen's coders.
    Qwen,
    /// StarCoder, Granite and their like.
    Starcoder,
    /// Code Llama.
    Codellama,
    /// DeepSeek's coders.
    Deepseek,
    /// Codestral.
    Codestral,
    /// CodeGemma.
    Codegemma,
}

/// Words in the names of models, in small letters, the first of which that is found tells the template.
const NAMES: [(&str, Fill); 10] = [
    ("codegemma", Fill::Codegemma),
    ("codestral", Fill::Codestral),
    ("codellama", Fill::Codellama),
    ("code-llama", Fill::Codellama),
    ("deepseek-coder", Fill::Deepseek),
    ("deepseek_coder", Fill::Deepseek),
    ("starcoder", Fill::Starcoder),
    ("granite", Fill::Starcoder),
    ("qwen", Fill::Qwen),
    ("codeqwen", Fill::Qwen),
];

/// What stands before, between and after the two texts; and what ends the answer, the likeliest first.
struct Template {
    prefix: &'static str,
    suffix: &'static str,
    middle: &'static str,
    is_suffix_first: bool,
    stops: &'static [&'static str],
}

impl Template {
    /// What ends an answer. One to a prompt without a suffix, as at the end of a file, may hold a mark that is a plain word.
    fn stops_of(&self, has_suffix: bool) -> impl Iterator<Item = &'static str> {
        let is_plain = |stop: &str| !stop.contains(['|', '_', '｜']);
        let marks = [self.prefix, self.suffix, self.middle].map(str::trim);
        self.stops.iter().copied().filter(move |stop| has_suffix || !is_plain(stop) || !marks.contains(stop))
    }

    /// Leaves out what of a prompt with a suffix lies beyond a mark of this template in its own text, as in the source of a
    /// program about such templates: the model would take it for the mark. What is to be said of that, if there is any.
    fn cut(&self, Prompt { text, suffix }: &mut Prompt) -> Option<String> {
        let suffix = suffix.as_mut()?;
        let marks = [self.prefix, self.suffix, self.middle].into_iter().filter(|mark| !mark.is_empty());
        let last = marks.clone().filter_map(|mark| Some((text.rfind(mark)? + mark.len(), mark))).max();
        let first = marks.filter_map(|mark| Some((suffix.find(mark)?, mark))).min();
        if let Some((end, _)) = last {
            text.drain(..end);
        }
        if let Some((at, _)) = first {
            suffix.truncate(at);
        }
        let (_, mark) = last.or(first)?;
        Some(format!("what lies beyond `{}` was left out: it is a mark of the model's template", mark.trim()))
    }
}

impl Fill {
    /// The template to use for a model, if one is to be used.
    fn template(self, model: Option<&str>) -> Option<Template> {
        let usual =
            |prefix, suffix, middle, stops| Some(Template { prefix, suffix, middle, is_suffix_first: false, stops });
        match self {
            Self::Server => None,
            Self::Auto => {
                let model = model?.to_ascii_lowercase();
                let (_, fill) = NAMES.iter().find(|(name, _)| model.contains(name))?;
                fill.template(None)
            }
            Self::Qwen => usual(
                "<|fim_prefix|>",
                "<|fim_suffix|>",
                "<|fim_middle|>",
                &[
                    "<|endoftext|>",
                    "<|fim_pad|>",
                    "<|file_sep|>",
                    "<|repo_name|>",
                    "<|fim_prefix|>",
                    "<|fim_suffix|>",
                    "<|fim_middle|>",
                    "<|im_start|>",
                    "<|im_end|>",
                ],
            ),
            Self::Codegemma => usual(
                "<|fim_prefix|>",
                "<|fim_suffix|>",
                "<|fim_middle|>",
                &["<|file_separator|>", "<end_of_turn>", "<eos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            ),
            Self::Starcoder => usual(
                "<fim_prefix>",
                "<fim_suffix>",
                "<fim_middle>",
                &[
                    "<|endoftext|>",
                    "<file_sep>",
                    "<fim_pad>",
                    "<repo_name>",
                    "<fim_prefix>",
                    "<fim_suffix>",
                    "<fim_middle>",
                ],
            ),
            Self::Codellama => usual("<PRE> ", " <SUF>", " <MID>", &["<EOT>", "<PRE>", "<SUF>", "<MID>"]),
            Self::Deepseek => usual(
                "<｜fim▁begin｜>",
                "<｜fim▁hole｜>",
                "<｜fim▁end｜>",
                &["<｜end▁of▁sentence｜>", "<|EOT|>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
            ),
            Self::Codestral => Some(Template {
                prefix: "[PREFIX]",
                suffix: "[SUFFIX]",
                middle: "",
                is_suffix_first: true,
                stops: &["</s>", "[PREFIX]", "[SUFFIX]"],
            }),
        }
    }

    /// Puts a prompt with a suffix into the template of `model`, if there is one. What ends the answer and is to be
    /// looked for here: beside that of the template, what is more than `most`, as many as the server takes.
    pub(crate) fn apply(self, request: &mut ChatRequest, model: Option<&str>, most: usize) -> Vec<String> {
        let mut stops = Vec::new();
        // A server that knows the template by itself reads marks in a text as marks, too.
        if let Some(known) = self.template(model).or_else(|| Self::Auto.template(model)) {
            request.notes.extend(request.prompt.as_mut().and_then(|prompt| known.cut(prompt)));
        }
        if let Some((prompt, template)) = request.prompt.as_mut().zip(self.template(model)) {
            let has_suffix = prompt.suffix.is_some();
            stops.extend(template.stops_of(has_suffix).map(str::to_owned));
            if let Some(suffix) = prompt.suffix.take() {
                let Template { prefix, suffix: between, middle, is_suffix_first, .. } = template;
                prompt.text = match is_suffix_first {
                    true => format!("{between}{suffix}{prefix}{}{middle}", prompt.text),
                    false => format!("{prefix}{}{between}{suffix}{middle}", prompt.text),
                };
            }
            request.stop.extend(stops.iter().cloned());
        }
        if request.stop.len() > most {
            stops.extend(request.stop.drain(most..));
        }
        stops.sort_unstable();
        stops.dedup();
        stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_STOPS: usize = 4;

    fn filled(fill: Fill, model: &str, stop: &[&str]) -> (Prompt, Vec<String>, Vec<String>) {
        let prompt = Some(Prompt { text: "fn a(".into(), suffix: Some(") {}".into()) });
        let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
        let mut request = ChatRequest { prompt, stop, ..ChatRequest::user("fn a(") };
        let local = fill.apply(&mut request, Some(model), MAX_STOPS);
        (request.prompt.unwrap(), request.stop, local)
    }

    #[test]
    fn a_models_name_tells_its_template_and_one_that_tells_none_leaves_it_to_the_server() {
        for (model, text) in [
            ("qwen2.5-coder:7b", "<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>"),
            ("bigcode/StarCoder2-3b", "<fim_prefix>fn a(<fim_suffix>) {}<fim_middle>"),
            ("granite-code", "<fim_prefix>fn a(<fim_suffix>) {}<fim_middle>"),
            ("codellama-7b", "<PRE> fn a( <SUF>) {} <MID>"),
            ("deepseek-coder-v2", "<｜fim▁begin｜>fn a(<｜fim▁hole｜>) {}<｜fim▁end｜>"),
            ("Codestral-22B", "[SUFFIX]) {}[PREFIX]fn a("),
            ("codegemma-2b", "<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>"),
        ] {
            let (prompt, stop, local) = filled(Fill::Auto, model, &["\n\n"]);
            assert_eq!((&*prompt.text, prompt.suffix), (text, None), "{model}");
            assert!(stop.len() <= MAX_STOPS && stop[0] == "\n\n" && local.len() >= 3, "{stop:?} {local:?}");
        }
        for (fill, model) in [(Fill::Auto, "llama3.2"), (Fill::Server, "qwen2.5-coder")] {
            let (prompt, stop, local) = filled(fill, model, &["a", "b", "c", "d", "e"]);
            assert_eq!((&*prompt.text, prompt.suffix.as_deref()), ("fn a(", Some(") {}")));
            assert_eq!((stop.len(), local), (4, vec!["e".to_owned()]));
        }
    }

    #[test]
    fn a_text_that_holds_the_templates_own_marks_is_what_stands_between_them() {
        for (fill, model) in [(Fill::Auto, "qwen2.5-coder"), (Fill::Qwen, "mine"), (Fill::Server, "qwen2.5-coder")] {
            let cut = |text: &str, suffix: Option<&str>| {
                let prompt = Some(Prompt { text: text.into(), suffix: suffix.map(str::to_owned) });
                let mut request = ChatRequest { prompt, ..ChatRequest::user(text) };
                fill.apply(&mut request, Some(model), MAX_STOPS);
                let Prompt { text, suffix } = request.prompt.unwrap();
                let whole = suffix.map_or_else(
                    || text.clone(),
                    |suffix| format!("<|fim_prefix|>{text}<|fim_suffix|>{suffix}<|fim_middle|>"),
                );
                (whole, request.notes.len())
            };
            let whole = |text: &str| format!("<|fim_prefix|>{text}<|fim_middle|>");
            let marked = cut("a <|fim_prefix|> b <|fim_middle|> c", Some("d <|fim_suffix|> e <|fim_middle|>"));
            assert_eq!(marked, (whole(" c<|fim_suffix|>d "), 1), "{fill:?}");
            assert_eq!(cut("a", Some("<|fim_prefix|>")), (whole("a<|fim_suffix|>"), 1));
            assert_eq!(cut("a <|fim_", Some("<fim_middle>")), (whole("a <|fim_<|fim_suffix|><fim_middle>"), 0));
            // Whoever writes the template itself sends no suffix.
            let own = "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>";
            assert_eq!(cut(own, None), (own.to_owned(), 0));
        }
    }

    // At the end of a file an editor has no suffix to send.
    #[test]
    fn a_prompt_without_a_suffix_is_sent_as_it_is_and_ends_at_the_models_marks_too() {
        let applied = |fill: Fill, model: &str| {
            let prompt = Some(Prompt { text: "fn a(".into(), suffix: None });
            let mut request = ChatRequest { prompt, stop: vec!["\n\n".into()], ..ChatRequest::user("fn a(") };
            let local = fill.apply(&mut request, Some(model), MAX_STOPS);
            (request.prompt.unwrap().text, request.stop, local)
        };
        for (fill, model, mark) in [
            (Fill::Auto, "qwen2.5-coder", "<|file_sep|>"),
            (Fill::Qwen, "mine", "<|im_end|>"),
            (Fill::Auto, "starcoder2", "<file_sep>"),
            (Fill::Codellama, "mine", "<EOT>"),
            (Fill::Codestral, "mine", "</s>"),
        ] {
            let (text, stop, local) = applied(fill, model);
            assert_eq!((&*text, &*stop[0]), ("fn a(", "\n\n"), "{model}");
            assert!(local.iter().any(|local| local == mark) && stop.len() <= MAX_STOPS, "{model}: {local:?}");
            // Words that a program may well hold.
            assert!(!local.iter().any(|local| local == "<PRE>" || local == "[PREFIX]"), "{model}: {local:?}");
        }
        let (_, stop, local) = applied(Fill::Server, "qwen2.5-coder");
        assert!(stop.len() == 1 && local.is_empty());
    }

    #[test]
    fn a_chat_has_no_template_and_no_more_stops_than_its_server_takes() {
        let stop: Vec<_> = ('a'..='i').map(String::from).collect();
        let request = || ChatRequest { stop: stop.clone(), ..ChatRequest::user("hi") };
        let mut chat = request();
        assert!(Fill::Qwen.apply(&mut chat, None, usize::MAX).is_empty() && chat.stop.len() == 9);
        let mut chat = request();
        assert_eq!(Fill::Qwen.apply(&mut chat, None, MAX_STOPS), stop[4..]);
        assert_eq!(chat.stop, stop[..4]);
    }
}
