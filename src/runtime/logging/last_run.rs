//! The last lines of the last run of an instance that has failed, which the logger is asked for.

/// The last lines, and the answers of the logger that have not come yet. They come in the order of the questions.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    text: String,
    /// How many answers have not come.
    awaited: u32,
    /// How many of these, the latest ones, are about the last run; those before are about earlier ones.
    current: u32,
}

impl LastRun {
    /// The last lines; empty if none has failed, or the logger has not answered.
    pub(super) fn lines(&self) -> &str {
        &self.text
    }

    /// A run has failed. Answers that are awaited may be about it.
    pub(super) fn on_failure(&mut self) {
        self.text = String::new();
    }

    /// A run has failed that has written nothing: answers that are awaited are about earlier ones.
    pub(super) fn on_failed_start(&mut self) {
        self.current = 0;
    }

    /// The logger has been asked.
    pub(super) const fn on_asked(&mut self) {
        self.awaited += 1;
        self.current += 1;
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// The logger has answered.
    pub(super) fn on_answer(&mut self, text: String) {
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited < self.current {
            (self.text, self.current) = (text, self.awaited);
        }
    }

    /// The logger has exited: it does not answer.
    pub(super) const fn on_logger_exit(&mut self) {
        (self.awaited, self.current) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_an_earlier_run_is_not_shown() {
        let mut last = LastRun::default();
        last.on_asked();
        last.on_failed_start();
        last.on_answer("before".to_owned());
        assert_eq!((last.lines(), last.is_awaited()), ("", false));
        last.on_asked();
        last.on_failed_start();
        last.on_asked();
        last.on_answer("before".to_owned());
        assert_eq!((last.lines(), last.is_awaited()), ("", true));
        last.on_answer("after".to_owned());
        assert_eq!((last.lines(), last.is_awaited()), ("after", false));
        last.on_failure();
        assert_eq!(last.lines(), "");
    }

    #[test]
    fn a_logger_that_has_exited_does_not_answer_and_the_next_one_does() {
        let mut last = LastRun::default();
        last.on_asked();
        last.on_logger_exit();
        assert!(!last.is_awaited());
        last.on_asked();
        last.on_answer("next".to_owned());
        assert_eq!(last.lines(), "next");
    }
}
