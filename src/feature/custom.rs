//! The caller's own score modifiers and masks: WGSL for the kernels, a Rust closure for the reference.
//!
//! They go through exactly the path of the built-in ones: composed into every schedule, fused, and
//! checked against the closure when a call is planned and by `heedful::verify`. The WGSL may use `Position`,
//! `params`, the functions of `shaders/common`, and `table_word(i)`, word i of the caller's table.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mask::Mask;
use super::score::{Score, Stage};
use super::{Operands, Position, Slot, slots};
use crate::error::{Error, Result};
use crate::tensor::Shape;

/// A function of the caller's: its name, its WGSL and its meaning on the CPU.
///
/// Two are equal when name and WGSL are, that of the derivative too.
pub struct Custom<F: ?Sized> {
    name: String,
    wgsl: String,
    meaning: Arc<F>,
    /// The derivative by the score, where it is a score modifier that has one: its WGSL and its meaning.
    derivative: Option<(String, Arc<F>)>,
    /// The closure's number: clones share it.
    id: u64,
}

/// s → s, after every built-in modifier.
pub type CustomScore = Custom<dyn Fn(f64, &Position) -> f64 + Send + Sync>;

/// Whether a row may attend to a key; AND-ed with every other mask.
pub type CustomMask = Custom<dyn Fn(&Position) -> bool + Send + Sync>;

impl CustomScore {
    /// A score modifier: WGSL that defines `fn score_{name}(s: f32, p: Position) -> f32`, and the same
    /// as a closure. It must give finite results for finite scores; hiding a key is a mask's work.
    pub fn new(
        name: impl Into<String>,
        wgsl: impl Into<String>,
        meaning: impl Fn(f64, &Position) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self::with(name.into(), wgsl.into(), Arc::new(meaning))
    }

    /// The same with its derivative by the score, without which there are no gradients: WGSL that defines
    /// `fn score_{name}_derivative(s: f32, p: Position) -> f32`, s the score before it, and the same as a closure.
    /// What it reads of the table is taken as constant.
    pub fn with_derivative(
        mut self,
        wgsl: impl Into<String>,
        meaning: impl Fn(f64, &Position) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.derivative = Some((wgsl.into(), Arc::new(meaning)));
        self
    }

    /// The derivative as a function of its own, for it to be compared with its closure.
    pub(crate) fn derivative_alone(&self) -> Option<Self> {
        let (wgsl, meaning) = self.derivative.as_ref()?;
        let name = format!("{}_derivative", self.name);
        let wgsl = format!("{}\n{wgsl}", self.wgsl);
        let (meaning, id) = (Arc::clone(meaning), self.id | 1 << 63);
        Some(Self { name, wgsl, meaning, derivative: None, id })
    }
}

impl CustomMask {
    /// A mask: WGSL that defines `fn mask_{name}(p: Position) -> bool`, and the same as a closure.
    pub fn new(
        name: impl Into<String>,
        wgsl: impl Into<String>,
        meaning: impl Fn(&Position) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::with(name.into(), wgsl.into(), Arc::new(meaning))
    }
}

impl<F: ?Sized> Custom<F> {
    fn with(name: String, wgsl: String, meaning: Arc<F>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { name, wgsl, meaning, derivative: None, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn key(&self) -> (&str, &str, Option<&str>) {
        let derivative = self.derivative.as_ref().map(|(wgsl, _)| wgsl.as_str());
        (&self.name, &self.wgsl, derivative)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn slot_of(&self, kind: &'static str) -> Slot {
        let (name, mut source) = (Cow::Owned(self.name.clone()), self.wgsl.clone());
        if let Some((derivative, _)) = &self.derivative {
            source = source + super::BACKWARD + derivative;
        }
        let source = Cow::Owned(source);
        let (parameters, tables, title) = (&[][..], &[][..], None);
        Slot {
            kind,
            name,
            source,
            custom: true,
            parameters,
            tables,
            narrows: false,
            is_data: false,
            title,
            listed: false,
        }
    }

    /// The name must be an identifier that no built-in slot of its kind has; the WGSL must define
    /// the function.
    fn check(&self, kind: &'static str) -> Result<()> {
        let argument = format!("custom {kind} name");
        let first = self.name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
        let rest = self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !first || !rest {
            return Err(Error::invalid(argument, format!("{:?}", self.name), "an identifier"));
        }
        if slots().any(|slot| slot.kind == kind && slot.name == self.name) {
            let found = format!("{:?}", self.name);
            return Err(Error::invalid(argument, found, "a name no built-in one has"));
        }
        let function = format!("fn {kind}_{}(", self.name);
        if !self.wgsl.contains(&function) {
            let argument = format!("custom {kind} {:?}", self.name);
            return Err(Error::invalid(argument, "WGSL without it", format!("{function}…)")));
        }
        let function = format!("fn {kind}_{}_derivative(", self.name);
        if self.derivative.as_ref().is_some_and(|(wgsl, _)| !wgsl.contains(&function)) {
            let argument = format!("derivative of custom {kind} {:?}", self.name);
            return Err(Error::invalid(argument, "WGSL without it", format!("{function}…)")));
        }
        Ok(())
    }
}

impl Score for CustomScore {
    fn stage(&self) -> Stage {
        Stage::Biased
    }

    fn slot(&self) -> Slot {
        self.slot_of("score")
    }

    fn text(&self) -> Option<String> {
        Some(format!("score({})", self.name))
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        self.check("score")
    }

    fn apply(&self, s: f64, at: &Position, _: &Operands<'_>) -> f64 {
        (self.meaning)(s, at)
    }

    fn derivative(&self, s: f64, at: &Position, _: &Operands<'_>) -> f64 {
        self.derivative.as_ref().map_or(f64::NAN, |(_, meaning)| meaning(s, at))
    }

    fn has_derivative(&self) -> bool {
        self.derivative.is_some()
    }
}

impl Mask for CustomMask {
    fn slot(&self) -> Slot {
        self.slot_of("mask")
    }

    fn text(&self) -> String {
        format!("mask({})", self.name)
    }

    fn validate(&self, _: &Shape) -> Result<()> {
        self.check("mask")
    }

    fn keeps(&self, at: &Position, _: &Operands<'_>, _: &Shape) -> bool {
        (self.meaning)(at)
    }
}

impl<F: ?Sized> Clone for Custom<F> {
    fn clone(&self) -> Self {
        let (name, wgsl, derivative) =
            (self.name.clone(), self.wgsl.clone(), self.derivative.clone());
        Self { name, wgsl, meaning: Arc::clone(&self.meaning), derivative, id: self.id }
    }
}

impl<F: ?Sized> PartialEq for Custom<F> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<F: ?Sized> Eq for Custom<F> {}

impl<F: ?Sized> Hash for Custom<F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl<F: ?Sized> fmt::Debug for Custom<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Functions cannot be serialised, and leaving them out would change what is asked.
#[cfg(feature = "serde")]
pub(crate) mod serial {
    const REFUSED: &str = "a call with functions of the caller's own has no serial form";

    pub(crate) fn serialize<T, S: serde::Serializer>(_: &[T], _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(REFUSED))
    }

    pub(crate) fn deserialize<'de, T, D: serde::Deserializer<'de>>(_: D) -> Result<T, D::Error> {
        Err(serde::de::Error::custom(REFUSED))
    }
}
