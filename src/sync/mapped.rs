//! Guards of a part of a locked value.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::mutex::MutexGuard;
use super::raw_mutex::RawMutex;
use super::raw_rwlock::RawRwLock;
use super::rwlock::{RwLockReadGuard, RwLockWriteGuard};

/// A guard's mapped form, and the way there. `mut` stands where the guard gives the value out to be
/// changed.
macro_rules! mapped {
    ($guard:ident, $mapped:ident, $raw:ident, $unlock:ident $(, $mut:tt)?) => {
        impl<'a, T: ?Sized> $guard<'a, T> {
            /// The lock, now held for a part of the value.
            ///
            /// In handlers: no.
            pub fn map<U: ?Sized>($($mut)? this: Self, part: impl FnOnce(&$($mut)? T) -> &$($mut)? U) -> $mapped<'a, U> {
                let value = NonNull::from(part(&$($mut)? *this));
                let raw = ManuallyDrop::new(this).raw();
                $mapped { raw, value, lends: PhantomData }
            }

            /// The lock, now held for a part of the value if there is that part; else as before.
            ///
            /// In handlers: no.
            pub fn filter_map<U: ?Sized>(
                $($mut)? this: Self,
                part: impl FnOnce(&$($mut)? T) -> Option<&$($mut)? U>,
            ) -> Result<$mapped<'a, U>, Self> {
                let Some(value) = part(&$($mut)? *this).map(NonNull::from) else {
                    return Err(this);
                };
                let raw = ManuallyDrop::new(this).raw();
                Ok($mapped { raw, value, lends: PhantomData })
            }
        }

        impl<'a, T: ?Sized> $mapped<'a, T> {
            /// The lock, now held for a part of the part.
            ///
            /// In handlers: no.
            pub fn map<U: ?Sized>($($mut)? this: Self, part: impl FnOnce(&$($mut)? T) -> &$($mut)? U) -> $mapped<'a, U> {
                let value = NonNull::from(part(&$($mut)? *this));
                let raw = ManuallyDrop::new(this).raw;
                $mapped { raw, value, lends: PhantomData }
            }

            /// The lock, now held for a part of the part if there is one; else as before.
            ///
            /// In handlers: no.
            pub fn filter_map<U: ?Sized>(
                $($mut)? this: Self,
                part: impl FnOnce(&$($mut)? T) -> Option<&$($mut)? U>,
            ) -> Result<$mapped<'a, U>, Self> {
                let Some(value) = part(&$($mut)? *this).map(NonNull::from) else {
                    return Err(this);
                };
                let raw = ManuallyDrop::new(this).raw;
                Ok($mapped { raw, value, lends: PhantomData })
            }
        }

        #[doc = concat!("A [`", stringify!($guard), "`] of a part of the value; unlocks when dropped.")]
        #[must_use = "if unused, the lock is unlocked at once"]
        pub struct $mapped<'a, T: ?Sized> {
            raw: &'a $raw,
            /// In what is locked. That it is a pointer keeps the guard on its thread.
            value: NonNull<T>,
            lends: PhantomData<&'a $($mut)? T>,
        }

        // SAFETY: by reference the guard gives out what `&T` does.
        unsafe impl<T: ?Sized + Sync> Sync for $mapped<'_, T> {}

        assert_not_impl_any!($mapped<'static, u8>: Send, Clone);
        assert_impl_all!($mapped<'static, u8>: Sync);

        impl<T: ?Sized> Deref for $mapped<'_, T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: it is part of what the guard was for that this one came from, and the
                // lock is held still.
                unsafe { self.value.as_ref() }
            }
        }

        $(mapped! { $mut $mapped })?

        impl<T: ?Sized> Drop for $mapped<'_, T> {
            #[inline]
            fn drop(&mut self) {
                self.raw.$unlock();
            }
        }

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $mapped<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $mapped<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&**self, f)
            }
        }
    };
    (mut $mapped:ident) => {
        impl<T: ?Sized> DerefMut for $mapped<'_, T> {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: as in `deref`, and nobody else has the lock.
                unsafe { self.value.as_mut() }
            }
        }
    };
}

mapped!(MutexGuard, MappedMutexGuard, RawMutex, unlock, mut);
mapped!(RwLockReadGuard, MappedRwLockReadGuard, RawRwLock, end_read);
mapped!(RwLockWriteGuard, MappedRwLockWriteGuard, RawRwLock, end_write, mut);
