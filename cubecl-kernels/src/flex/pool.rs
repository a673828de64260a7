//! Threads that wait for work awake.
//!
//! A decode step of a small model is some hundred products of a few dozen microseconds each, as
//! long as it takes to wake a sleeping thread. These threads spin between products and sleep only
//! when none has come for a while.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread waits awake.
const AWAKE: Duration = Duration::from_micros(500);

/// Threads that share work, the caller among them.
pub(crate) fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(rayon::current_num_threads)
}

/// Calls `f` with the number of each item and the item, on all threads.
///
/// # Panics
/// When `f` does, after all calls have ended.
pub(crate) fn for_each<T: Send>(items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
    for_each_on(usize::MAX, items, f);
}

/// [`for_each`] on the caller's thread alone if `most` is 1.
pub(crate) fn for_each_on<T: Send>(most: usize, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
    let one_by_one = |items: &mut [T]| items.iter_mut().enumerate().for_each(|(i, item)| f(i, item));
    if most.min(items.len()).min(threads()) < 2 {
        return one_by_one(items);
    }
    let pool = Pool::get();
    // Another model's thread, or a task of the work itself, may be using the pool.
    let _turn = match pool.turn.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => return one_by_one(items),
    };
    let (first, count) = (Items(items.as_mut_ptr()), items.len());
    pool.run(count, &|i| {
        let first = &first;
        // SAFETY: `i` is below `count`, and `run` passes each number once, so nobody else holds
        // the item; `items` stays borrowed until `run` has returned.
        f(i, unsafe { &mut *first.0.add(i) });
    });
}

struct Items<T>(*mut T);
// SAFETY: only hands out each item to one thread, which `T: Send` allows.
unsafe impl<T: Send> Sync for Items<T> {}

/// Work in progress.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    count: usize,
}

/// Bits of [`Pool::state`]: threads at work, whether there is work, and the work's number.
const OPEN: usize = 1 << 16;
const NUMBER: usize = 1 << 17;
const AT_WORK: usize = OPEN - 1;

struct Pool {
    /// Held by whoever has work done.
    turn: Mutex<()>,
    state: AtomicUsize,
    /// Written only while there is no work and nobody at it.
    job: UnsafeCell<Option<Job>>,
    /// The next number to call.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is guarded by `state`, see there; everything else is `Sync`.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl Pool {
    /// The pool, with its threads started.
    fn get() -> &'static Self {
        static POOL: OnceLock<&'static Pool> = OnceLock::new();
        POOL.get_or_init(|| {
            let pool: &'static Self = Box::leak(Box::new(Self {
                turn: Mutex::new(()),
                state: AtomicUsize::new(0),
                job: UnsafeCell::new(None),
                next: AtomicUsize::new(0),
                panic: Mutex::new(None),
                asleep: AtomicUsize::new(0),
                sleep: Mutex::new(()),
                wake: Condvar::new(),
            }));
            for i in 1..threads() {
                // Without the thread the others do its work.
                let _ = std::thread::Builder::new().name(format!("kernels-{i}")).spawn(|| pool.work());
            }
            pool
        })
    }

    /// Calls `call` with every number below `count`, and returns when all calls have. The caller
    /// holds `turn`.
    fn run(&self, count: usize, call: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; nobody uses the job after this function, see below.
        let call: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(call) };
        // SAFETY: there is no work, nobody is at it, and nobody else writes: the caller has `turn`.
        unsafe { *self.job.get() = Some(Job { call, count }) };
        self.next.store(0, Ordering::Relaxed);
        self.state.fetch_add(NUMBER | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
        self.calls(Job { call, count });
        // From here nobody joins; who has joined is waited for.
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut turns = 0u32;
        while self.state.load(Ordering::Acquire) & AT_WORK != 0 {
            turns += 1;
            if turns.is_multiple_of(4096) { std::thread::yield_now() } else { spin_loop() }
        }
        if let Some(panic) = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(panic);
        }
    }

    /// Takes numbers until there are none left. A panic is kept for the caller of [`Self::run`].
    fn calls(&self, job: Job) {
        let calls = || {
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= job.count {
                    break;
                }
                // SAFETY: `run`, whose argument this is, waits for everyone who is at work.
                unsafe { (*job.call)(i) };
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(calls)) {
            self.next.store(job.count, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    /// What a thread does all its life.
    fn work(&self) {
        let mut last = 0;
        loop {
            let state = self.wait(last);
            last = state / NUMBER;
            if self.state.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                // Somebody joined or the work ended: look again.
                last = last.wrapping_sub(1);
                continue;
            }
            // SAFETY: having joined, the job stays until this thread leaves.
            if let Some(job) = unsafe { *self.job.get() } {
                self.calls(job);
            }
            self.state.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits for work with another number than `last`.
    fn wait(&self, last: usize) -> usize {
        let new_work = || Some(self.state.load(Ordering::SeqCst)).filter(|s| s & OPEN != 0 && s / NUMBER != last);
        let start = Instant::now();
        loop {
            for _ in 0..256 {
                if let Some(state) = new_work() {
                    return state;
                }
                spin_loop();
            }
            if start.elapsed() > AWAKE {
                break;
            }
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            if let Some(state) = new_work() {
                break state;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::for_each;

    #[test]
    fn every_item_is_visited_once() {
        for count in [0, 1, 2, 3, 100] {
            for _ in 0..200 {
                let mut items = vec![0usize; count];
                for_each(&mut items, |i, item| *item += i + 1);
                assert!(items.iter().enumerate().all(|(i, item)| *item == i + 1));
            }
        }
    }

    #[test]
    fn work_within_work_and_from_two_threads_is_done() {
        let work = || {
            for _ in 0..100 {
                let mut items = vec![[0usize; 4]; 9];
                for_each(&mut items, |i, item| for_each(item, |j, item| *item = i * j));
                for (i, item) in items.iter().enumerate() {
                    assert_eq!(*item, [0, i, 2 * i, 3 * i]);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        for _ in 0..20 {
            let mut items = [0; 50];
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for_each(&mut items, |i, _| assert!(i != 7, "on purpose"));
            }));
            assert!(caught.is_err());
            every_item_is_visited_once();
        }
    }
}
