//! Things of a driver that others hold by number: events, graphs. Whoever drops the number gives the thing back, without
//! knowing the driver, which reuses or destroys it when it next comes by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places that were given back. An engine may be used from another thread than the one that made it.
type Returned = Arc<Mutex<Vec<usize>>>;

fn lock(returned: &Returned) -> MutexGuard<'_, Vec<usize>> {
    // A list of numbers is as good as before whoever panicked.
    returned.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in a driver's table, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    index: usize,
    home: Returned,
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.home).push(self.index);
    }
}

/// A driver's table.
#[derive(Debug)]
pub(super) struct Slots<T> {
    items: Vec<T>,
    returned: Returned,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { items: Vec::new(), returned: Returned::default() }
    }
}

impl<T: Copy> Slots<T> {
    /// A thing that was given back, to be used again.
    pub(super) fn reuse(&mut self) -> Option<Slot> {
        let index = lock(&self.returned).pop()?;
        Some(Slot { index, home: Arc::clone(&self.returned) })
    }
    /// One thing more.
    pub(super) fn add(&mut self, item: T) -> Slot {
        self.items.push(item);
        Slot { index: self.items.len() - 1, home: Arc::clone(&self.returned) }
    }
    /// What is there, if the place is in this table.
    pub(super) fn get(&self, slot: &Slot) -> Option<T> {
        let ours = Arc::ptr_eq(&self.returned, &slot.home);
        self.items.get(slot.index).filter(|_| ours).copied()
    }
    /// Takes out what was given back, for good; the place stays empty.
    pub(super) fn take_returned(&mut self, empty: T) -> Vec<T> {
        let returned = std::mem::take(&mut *lock(&self.returned));
        returned.into_iter().filter_map(|i| self.items.get_mut(i).map(|item| std::mem::replace(item, empty))).collect()
    }
    /// All things, held or not.
    pub(super) fn all(&self) -> &[T] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_used_again() {
        let (mut slots, mut others) = (Slots::default(), Slots::default());
        let (a, b, foreign) = (slots.add('a'), slots.add('b'), others.add('x'));
        assert_eq!((slots.get(&a), slots.get(&b), slots.get(&foreign)), (Some('a'), Some('b'), None));
        assert!(slots.reuse().is_none());
        drop(a);
        let again = slots.reuse().unwrap();
        assert_eq!((slots.get(&again), slots.all()), (Some('a'), &['a', 'b'][..]));
        drop(again);
        assert_eq!((slots.take_returned('-'), slots.all()), (vec!['a'], &['-', 'b'][..]));
        assert!(slots.reuse().is_none());
        drop(slots);
        // Nobody is there to take it.
        drop(b);
    }
}
