//! One value for each class.

use super::class::Class;

/// One value for each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap<T>([T; Class::ALL.len()]);

impl<T> ClassMap<T> {
    /// A map from a function of the class.
    pub fn from_fn(mut value: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(&mut value))
    }

    /// The value of a class.
    #[expect(clippy::indexing_slicing, reason = "the array has a place for each class; tested in `class`")]
    pub fn get(&self, class: Class) -> &T {
        &self.0[class as usize]
    }

    /// The place of a class's value.
    #[expect(clippy::indexing_slicing, reason = "the array has a place for each class; tested in `class`")]
    pub fn get_mut(&mut self, class: Class) -> &mut T {
        &mut self.0[class as usize]
    }
}
