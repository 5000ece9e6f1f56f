//! Reads ahead: a few threads read what was announced, in that order, while the caller works on what came before.
//!
//! Invariants: an answer is given to the read that it was announced for and to no other, whenever it came; an error is
//! the error of that read. Threads, requests and bytes that wait to be taken are bounded. Nothing here retries.

use snapshot::ports::{BlockIdx, Extent, IO_MAX, IoError, PAGE_SIZE};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Requests under way at once.
const THREADS: usize = 4;
/// Most bytes that are read, or being read, and not taken: a batch of `BatchSize::LARGE` with its gaps.
const HELD_MAX: usize = 40 << 20;
/// Most requests that are announced and not taken: two batches of single blocks.
const ANNOUNCED_MAX: usize = 16_384;
/// How long a disk may take for a request.
const ANSWER_WAIT: Duration = Duration::from_secs(600);

/// What is read from.
pub trait ReadAt: Send + Sync + 'static {
    /// Reads blocks to an address that is a multiple of the page size.
    fn read_at(&self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError>;
}

/// Bytes that begin at a multiple of the page size, somewhere in an allocation.
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    skip: usize,
}

impl Aligned {
    /// Zeros, so many.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE_SIZE];
        let skip = bytes.as_ptr().align_offset(PAGE_SIZE).min(PAGE_SIZE);
        Self { bytes, skip }
    }

    /// The first of them, all if there are fewer.
    pub fn first(&mut self, len: usize) -> &mut [u8] {
        let end = (self.skip + len).min(self.bytes.len());
        &mut self.bytes[self.skip..end]
    }
}

/// How far a request is.
#[derive(Debug)]
enum Stage {
    Waiting,
    Reading,
    Done(Result<Aligned, IoError>),
}

#[derive(Debug, Default)]
struct State {
    /// Announced and not taken; those that wait are behind those that were begun.
    queue: VecDeque<(Extent, Stage)>,
    /// Number of the first one in the queue; numbers are never used twice.
    first: u64,
    begun: usize,
    held: usize,
    ended: bool,
}

impl State {
    /// The next request and its number, if there is room for what it reads.
    fn begin(&mut self) -> Option<(u64, Extent)> {
        let (extent, stage) = self.queue.get_mut(self.begun)?;
        let (extent, len) = (*extent, bytes(*extent));
        if self.held + len > HELD_MAX {
            return None;
        }
        *stage = Stage::Reading;
        self.held += len;
        self.begun += 1;
        Some((self.first + self.begun as u64 - 1, extent))
    }

    /// Keeps an answer for whoever asks; nobody will if it was taken back.
    fn answer(&mut self, number: u64, len: usize, answer: Result<Aligned, IoError>) {
        let place = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        match place.and_then(|at| self.queue.get_mut(at)) {
            Some((_, stage)) => *stage = Stage::Done(answer),
            None => self.held -= len,
        }
    }

    /// Takes all back. What is being read is dropped when it comes.
    fn forget(&mut self) {
        let done = self.queue.iter().filter(|(_, stage)| matches!(stage, Stage::Done(_)));
        self.held -= done.map(|(extent, _)| bytes(*extent)).sum::<usize>();
        self.first += self.queue.len() as u64;
        self.begun = 0;
        self.queue.clear();
    }

    /// Takes the first one, which is done.
    fn take(&mut self) -> Option<Result<Aligned, IoError>> {
        let Some((_, Stage::Done(_))) = self.queue.front() else { return None };
        let (extent, stage) = self.queue.pop_front()?;
        (self.first, self.begun, self.held) = (self.first + 1, self.begun - 1, self.held - bytes(extent));
        if let Stage::Done(answer) = stage { Some(answer) } else { None }
    }
}

fn bytes(extent: Extent) -> usize {
    usize::try_from(extent.blocks).unwrap_or(usize::MAX).saturating_mul(PAGE_SIZE)
}

struct Shared<R> {
    from: R,
    state: Mutex<State>,
    changed: Condvar,
}

impl<R> Shared<R> {
    /// A thread that died holding it left whole values: each change is one assignment or a few that cannot fail.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads and what they share; dropping it waits for the requests under way.
pub struct Ahead<R> {
    shared: Arc<Shared<R>>,
    threads: Vec<JoinHandle<()>>,
}

impl<R: ReadAt> Ahead<R> {
    /// Starts the threads, as many as the system gives.
    pub fn start(from: R) -> Self {
        let shared = Arc::new(Shared { from, state: Mutex::default(), changed: Condvar::new() });
        let thread = |_| {
            let shared = Arc::clone(&shared);
            Builder::new().name("read-ahead".into()).spawn(move || serve(&shared)).ok()
        };
        let threads = (0..THREADS).filter_map(thread).collect();
        Self { shared, threads }
    }

    /// These will be read after those that were announced before. What is too long, or one too many, is not noted: it
    /// is read when it is asked for.
    pub fn announce(&self, wanted: &[Extent]) {
        if self.threads.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        let room = ANNOUNCED_MAX.saturating_sub(state.queue.len());
        let right = wanted.iter().filter(|one| (1..=IO_MAX).contains(&bytes(**one)));
        state.queue.extend(right.take(room).map(|one| (*one, Stage::Waiting)));
        self.shared.changed.notify_all();
    }

    /// Nothing that was announced is wanted any more.
    pub fn forget(&self) {
        self.shared.lock().forget();
    }

    /// The answer to the request that was announced first; None if this is another one.
    pub fn take(&self, at: BlockIdx, into: &mut [u8]) -> Option<Result<(), IoError>> {
        let wanted = Extent { at, blocks: (into.len() / PAGE_SIZE) as u64 };
        let state = self.shared.lock();
        if state.queue.front().is_none_or(|(extent, _)| *extent != wanted) {
            return None;
        }
        let waits = |state: &mut State| !matches!(state.queue.front(), Some((_, Stage::Done(_))));
        let waited = self.shared.changed.wait_timeout_while(state, ANSWER_WAIT, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let answer = state.take();
        drop(state);
        self.shared.changed.notify_all();
        Some(answer.unwrap_or(Err(IoError::TimedOut)).map(|mut read| into.copy_from_slice(read.first(into.len()))))
    }
}

impl<R> Drop for Ahead<R> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.forget();
        drop(state);
        self.shared.changed.notify_all();
        // A thread that panicked has said so, and has nothing that is still wanted.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A thread: one request after the other until the end.
fn serve<R: ReadAt>(shared: &Shared<R>) {
    let mut state = shared.lock();
    while !state.ended {
        let Some((number, extent)) = state.begin() else {
            // Bounded by the owner, which ends all threads when it is dropped.
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let mut read = Aligned::new(bytes(extent));
        let answer = shared.from.read_at(extent.at, read.first(bytes(extent)));
        state = shared.lock();
        state.answer(number, bytes(extent), answer.map(|()| read));
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk whose requests end when the test says so, in any order, and fail where it says.
    #[derive(Clone, Default)]
    struct Slow(Arc<(Mutex<Desk>, Condvar)>);

    #[derive(Default)]
    struct Desk {
        begun: Vec<u64>,
        let_go: Vec<u64>,
        all_go: bool,
        bad: Vec<u64>,
        most: usize,
        under_way: usize,
    }

    impl ReadAt for Slow {
        fn read_at(&self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
            assert_eq!(into.as_ptr().align_offset(PAGE_SIZE), 0);
            let mut desk = self.0.0.lock().unwrap();
            desk.begun.push(at.0);
            desk.under_way += 1;
            desk.most = desk.most.max(desk.under_way);
            self.0.1.notify_all();
            desk = self.0.1.wait_while(desk, |desk| !desk.all_go && !desk.let_go.contains(&at.0)).unwrap();
            desk.under_way -= 1;
            for (block, page) in (at.0..).zip(into.chunks_mut(PAGE_SIZE)) {
                page.fill(block as u8);
            }
            if desk.bad.contains(&at.0) { Err(IoError::Failed { at }) } else { Ok(()) }
        }
    }

    impl Slow {
        fn change(&self, change: impl FnOnce(&mut Desk)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        /// Waits until so many requests have begun.
        fn begun(&self, count: usize) -> Vec<u64> {
            let desk = self.0.0.lock().unwrap();
            self.0.1.wait_while(desk, |desk| desk.begun.len() < count).unwrap().begun.clone()
        }
    }

    fn extents(places: impl IntoIterator<Item = u64>, blocks: u64) -> Vec<Extent> {
        places.into_iter().map(|at| Extent { at: BlockIdx(at), blocks }).collect()
    }

    fn take(ahead: &Ahead<Slow>, at: u64, blocks: usize) -> Option<Result<u8, IoError>> {
        let mut into = vec![0xff; blocks * PAGE_SIZE];
        let answer = ahead.take(BlockIdx(at), &mut into)?;
        let right =
            (at..).zip(into.chunks(PAGE_SIZE)).all(|(block, page)| page.iter().all(|byte| *byte == block as u8));
        assert!(answer.is_err() || right, "the bytes of another place at block {at}");
        Some(answer.map(|()| into[0]))
    }

    #[test]
    fn answers_that_come_in_another_order_go_to_their_reads_and_so_do_errors() {
        let disk = Slow::default();
        let ahead = Ahead::start(disk.clone());
        disk.change(|desk| desk.bad = vec![30]);
        ahead.announce(&extents([10, 30, 20, 40, 50], 2));
        let mut first = disk.begun(THREADS);
        first.sort_unstable();
        assert_eq!(first, [10, 20, 30, 40], "in the order of the announcement");
        // The last ones end first.
        disk.change(|desk| desk.let_go = vec![40, 20]);
        assert_eq!(disk.begun(5)[4], 50);
        assert_eq!(take(&ahead, 7, 1), None, "it was not announced");
        assert_eq!(take(&ahead, 30, 2), None, "not its turn");
        disk.change(|desk| desk.all_go = true);
        assert_eq!(take(&ahead, 10, 2), Some(Ok(10)));
        assert_eq!(take(&ahead, 30, 2), Some(Err(IoError::Failed { at: BlockIdx(30) })));
        assert_eq!(take(&ahead, 30, 1), None, "a second try is a read of its own");
        assert_eq!([take(&ahead, 20, 2), take(&ahead, 40, 2)], [Some(Ok(20)), Some(Ok(40))]);
        assert_eq!([take(&ahead, 50, 2), take(&ahead, 50, 2)], [Some(Ok(50)), None]);
        assert_eq!(ahead.shared.lock().held, 0);
    }

    #[test]
    fn what_is_held_and_what_is_under_way_have_limits() {
        let disk = Slow::default();
        disk.change(|desk| desk.all_go = true);
        let ahead = Ahead::start(disk.clone());
        let blocks = (IO_MAX / PAGE_SIZE) as u64;
        let places: Vec<u64> = (0..100).map(|number| number * blocks).collect();
        ahead.announce(&extents(places.iter().copied(), blocks));
        let most = HELD_MAX / IO_MAX;
        disk.begun(most);
        for (taken, at) in places.iter().enumerate() {
            assert_eq!(take(&ahead, *at, IO_MAX / PAGE_SIZE), Some(Ok(*at as u8)));
            // Each that is taken makes room for one, and for no more.
            let wanted = (most + taken + 1).min(places.len());
            assert_eq!(disk.begun(wanted).len(), wanted);
        }
        assert!(disk.0.0.lock().unwrap().most <= THREADS);
        ahead.announce(&extents(0..2 * ANNOUNCED_MAX as u64, 1));
        assert!(ahead.shared.lock().queue.len() <= ANNOUNCED_MAX);
        ahead.announce(&extents([1], blocks + 1));
        ahead.announce(&extents([1], u64::MAX));
    }

    #[test]
    fn what_was_taken_back_is_given_to_nobody() {
        let disk = Slow::default();
        let ahead = Ahead::start(disk.clone());
        ahead.announce(&extents([10, 20, 30, 40, 50, 60], 1));
        disk.begun(THREADS);
        ahead.forget();
        ahead.announce(&extents([20, 70], 1));
        assert_eq!(take(&ahead, 10, 1), None);
        disk.change(|desk| desk.all_go = true);
        assert_eq!([take(&ahead, 20, 1), take(&ahead, 70, 1)], [Some(Ok(20)), Some(Ok(70))]);
        let mut begun = disk.begun(6);
        begun.sort_unstable();
        assert_eq!(begun, [10, 20, 20, 30, 40, 70], "50 and 60 were not begun");
        drop(ahead);
        assert_eq!(Arc::strong_count(&disk.0), 1, "a thread is left");
    }
}
