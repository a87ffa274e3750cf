//! Styles, with colours or without.
use ratatui::style::{Color, Modifier, Style};

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    has_colour: bool,
}

impl Paint {
    pub(crate) fn new(has_colour: bool) -> Paint {
        Paint { has_colour }
    }

    pub(crate) fn coloured(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(crate) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn warning(self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub(crate) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
