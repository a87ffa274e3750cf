//! A named set as rules use it: its types have to be those of what is looked up, and of what the rule makes of the value.
use crate::ast::{BitRange, Expression, PayloadBase, PayloadField, Selector, StatefulSpec};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A named set: index, types of its key, and types of its values if it is a map.
pub(super) struct NamedSet {
    pub(super) index: usize,
    pub(super) key: Vec<DataType>,
    pub(super) data: Option<Vec<DataType>>,
    /// What each of its elements has of its own.
    pub(super) stateful: Vec<StatefulSpec>,
}

impl NamedSet {
    /// May `key` be looked up in it; with `data`, for values of these types (verdicts if `data` is empty)? Its name and the place are for the error.
    pub(super) fn check_use(
        &self,
        name: &str,
        span: Span,
        key: &[Expression],
        data: Option<&[DataType]>,
    ) -> Result<(), Diagnostic> {
        let wanted: Vec<DataType> = key.iter().map(lookup_type).collect();
        if self.key.len() != wanted.len()
            || !self
                .key
                .iter()
                .zip(&wanted)
                .zip(key)
                .all(|((one, other), part)| one == other || is_number_of(*one, part))
        {
            let names =
                |kinds: &[DataType]| kinds.iter().map(|kind| kind.description()).collect::<Vec<_>>().join(" . ");
            let what = format!(
                "type mismatch: {name} has keys of type {}, the rule looks up {}",
                names(&self.key),
                names(&wanted)
            );
            return Err(Diagnostic::new(span, what));
        }
        let object = |kinds: Option<&[DataType]>| match kinds {
            Some([kind @ DataType::Object(_)]) => Some(*kind),
            _ => None,
        };
        if let (wanted, Some(there)) = (object(data), &self.data)
            && wanted != object(Some(there))
        {
            let names = |kind: Option<DataType>| kind.map_or("a value", DataType::description);
            let what = format!(
                "type mismatch: {name} maps to {}, the rule needs {}",
                names(object(Some(there))),
                names(wanted)
            );
            return Err(Diagnostic::new(span, what));
        }
        match (data, &self.data) {
            (None, Some(_)) => {
                Err(Diagnostic::new(span, format!("{name} is a map, not a set"))
                    .with_help("write map or vmap before it"))
            }
            (Some(_), None) => Err(Diagnostic::new(span, format!("{name} is a set, not a map"))),
            (Some([]), Some(values)) if !values.is_empty() => {
                Err(Diagnostic::new(span, format!("{name} maps to values, not to verdicts"))
                    .with_help("use map instead of vmap"))
            }
            (Some([_, ..]), Some(values)) if values.is_empty() => {
                Err(Diagnostic::new(span, format!("{name} maps to verdicts, not to values"))
                    .with_help("use vmap instead of map"))
            }
            _ => Ok(()),
        }
    }
}

/// A plain number takes the type of the set.
fn is_number_of(kind: DataType, value: &Expression) -> bool {
    matches!(value, Expression::Constant(number, DataType::Number(_)) if *number <= kind.max_value() && !kind.is_name())
}

/// Type of a part of a key that is looked up in a named set; the first 32 bits of a transport header are ports.
fn lookup_type(value: &Expression) -> DataType {
    match value {
        Expression::Select(Selector::Payload(PayloadField {
            base: PayloadBase::Transport,
            bits: BitRange { offset: 0 | 16, count: 16 },
            protocol: None,
            ..
        })) => DataType::Port,
        other => other.data_type(),
    }
}
