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

/// Defines a guard's mapped form and the functions that make it. `mut` marks guards that give out
/// `&mut T`.
macro_rules! mapped {
    ($guard:ident, $mapped:ident, $raw:ident, $unlock:ident $(, $mut:tt)?) => {
        impl<'a, T: ?Sized> $guard<'a, T> {
            /// Narrows the guard to a part of the value; the lock stays held.
            ///
            /// In handlers: no.
            pub fn map<U, F>($($mut)? this: Self, part: F) -> $mapped<'a, U>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> &$($mut)? U,
            {
                let value = NonNull::from(part(&$($mut)? *this));
                let raw = ManuallyDrop::new(this).raw();
                $mapped { raw, value, lends: PhantomData }
            }

            /// Narrows the guard to a part of the value, if `part` finds it; otherwise returns the
            /// guard.
            ///
            /// In handlers: no.
            #[doc(alias = "try_map")]
            pub fn filter_map<U, F>($($mut)? this: Self, part: F) -> Result<$mapped<'a, U>, Self>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> Option<&$($mut)? U>,
            {
                let Some(value) = part(&$($mut)? *this).map(NonNull::from) else {
                    return Err(this);
                };
                let raw = ManuallyDrop::new(this).raw();
                Ok($mapped { raw, value, lends: PhantomData })
            }

            /// As `filter_map`, but also returns the error of `part`; as in lock_api.
            ///
            /// In handlers: no.
            pub fn try_map_or_err<U, F, E>($($mut)? this: Self, part: F) -> Result<$mapped<'a, U>, (Self, E)>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> Result<&$($mut)? U, E>,
            {
                let value = match part(&$($mut)? *this).map(NonNull::from) {
                    Ok(value) => value,
                    Err(error) => return Err((this, error)),
                };
                let raw = ManuallyDrop::new(this).raw();
                Ok($mapped { raw, value, lends: PhantomData })
            }
        }

        impl<'a, T: ?Sized> $mapped<'a, T> {
            /// Narrows the guard to a part of its part; the lock stays held.
            ///
            /// In handlers: no.
            pub fn map<U, F>($($mut)? this: Self, part: F) -> $mapped<'a, U>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> &$($mut)? U,
            {
                let value = NonNull::from(part(&$($mut)? *this));
                let raw = ManuallyDrop::new(this).raw;
                $mapped { raw, value, lends: PhantomData }
            }

            /// Narrows the guard to a part of its part, if `part` finds it; otherwise returns the
            /// guard.
            ///
            /// In handlers: no.
            #[doc(alias = "try_map")]
            pub fn filter_map<U, F>($($mut)? this: Self, part: F) -> Result<$mapped<'a, U>, Self>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> Option<&$($mut)? U>,
            {
                let Some(value) = part(&$($mut)? *this).map(NonNull::from) else {
                    return Err(this);
                };
                let raw = ManuallyDrop::new(this).raw;
                Ok($mapped { raw, value, lends: PhantomData })
            }

            /// As `filter_map`, but also returns the error of `part`; as in lock_api.
            ///
            /// In handlers: no.
            pub fn try_map_or_err<U, F, E>($($mut)? this: Self, part: F) -> Result<$mapped<'a, U>, (Self, E)>
            where
                U: ?Sized,
                F: FnOnce(&$($mut)? T) -> Result<&$($mut)? U, E>,
            {
                let value = match part(&$($mut)? *this).map(NonNull::from) {
                    Ok(value) => value,
                    Err(error) => return Err((this, error)),
                };
                let raw = ManuallyDrop::new(this).raw;
                Ok($mapped { raw, value, lends: PhantomData })
            }
        }

        #[doc = concat!("A [`", stringify!($guard), "`] of a part of the value; unlocks when dropped.")]
        #[must_use = "if unused, the lock is unlocked at once"]
        pub struct $mapped<'a, T: ?Sized> {
            raw: &'a $raw,
            /// Points into the locked value. A raw pointer also keeps the guard on its thread
            /// (`!Send`).
            value: NonNull<T>,
            lends: PhantomData<&'a $($mut)? T>,
        }

        // SAFETY: through a shared reference the guard gives out only `&T`.
        unsafe impl<T: ?Sized + Sync> Sync for $mapped<'_, T> {}

        assert_not_impl_any!($mapped<'static, u8>: Send, Clone);
        assert_impl_all!($mapped<'static, u8>: Sync);

        impl<T: ?Sized> Deref for $mapped<'_, T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: the pointer was a reference to a part of the locked value, and the lock
                // is still held.
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
                // SAFETY: the pointer was a unique reference to a part of the locked value, and the
                // lock is still held, by this guard alone.
                unsafe { self.value.as_mut() }
            }
        }
    };
}

mapped!(MutexGuard, MappedMutexGuard, RawMutex, unlock, mut);
mapped!(RwLockReadGuard, MappedRwLockReadGuard, RawRwLock, end_read);
mapped!(RwLockWriteGuard, MappedRwLockWriteGuard, RawRwLock, end_write, mut);
