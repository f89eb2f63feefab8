//! Parameters of features: numbers that kernels read from the parameter block, declared beside what they mean.

/// A member of the parameter block: `params.{name}` in WGSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parameter {
    /// Name in WGSL, unique among all.
    pub name: &'static str,
    /// Type in WGSL.
    pub kind: ParameterKind,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParameterKind {
    /// u32.
    U32,
    /// i32.
    I32,
    /// f32.
    F32,
}

/// A parameter with its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Which parameter.
    pub parameter: Parameter,
    /// Its value's bits.
    pub bits: u32,
}

impl Parameter {
    pub(crate) const fn u32(name: &'static str) -> Self {
        Self { name, kind: ParameterKind::U32 }
    }

    pub(crate) const fn i32(name: &'static str) -> Self {
        Self { name, kind: ParameterKind::I32 }
    }

    pub(crate) const fn f32(name: &'static str) -> Self {
        Self { name, kind: ParameterKind::F32 }
    }

    /// The parameter with a value of its type.
    pub(crate) fn is(self, value: impl ParameterValue) -> Setting {
        debug_assert_eq!(value.kind(), self.kind, "{}", self.name);
        Setting { parameter: self, bits: value.bits() }
    }
}

impl ParameterKind {
    /// The type's name in WGSL.
    pub fn name(self) -> &'static str {
        match self {
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
        }
    }
}

/// What a parameter can hold.
pub(crate) trait ParameterValue: Copy {
    fn kind(self) -> ParameterKind;
    fn bits(self) -> u32;
}

impl ParameterValue for u32 {
    fn kind(self) -> ParameterKind {
        ParameterKind::U32
    }

    fn bits(self) -> u32 {
        self
    }
}

impl ParameterValue for i32 {
    fn kind(self) -> ParameterKind {
        ParameterKind::I32
    }

    fn bits(self) -> u32 {
        self as u32
    }
}

impl ParameterValue for f32 {
    fn kind(self) -> ParameterKind {
        ParameterKind::F32
    }

    fn bits(self) -> u32 {
        self.to_bits()
    }
}
