use tokio::sync::{Semaphore, SemaphorePermit};

/// The unit of room, in bytes of a blob. The smallest upload takes several times as much of memory.
const UNIT: u64 = 32 * 1024;

/// The most that one upload takes, in units. However large the blob is, it never has more in memory than the buffers of
/// two connections.
const MOST: u64 = 8;

/// Limits what concurrent uploads to a registry take of memory, for any number of images: as many small blobs at a time as
/// there may be requests, or an eighth of large ones.
pub(super) struct UploadRoom(Semaphore);

impl UploadRoom {
    /// Returns the room in a process that may send `requests` concurrent requests. Each upload has a connection or a file
    /// open besides them.
    pub(super) fn new(requests: usize) -> Self {
        Self(Semaphore::new(requests.max(MOST as usize)))
    }

    /// Waits until there is room for a blob of this size, in bytes.
    pub(super) async fn take(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        let units = size.div_ceil(UNIT).clamp(1, MOST);
        // Fails only if the semaphore is closed, which it never is.
        self.0.acquire_many(units as u32).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn at_a_time(requests: usize, size: u64) -> usize {
        let room = UploadRoom::new(requests);
        let taken = std::iter::from_fn(|| room.take(size).now_or_never().flatten());
        taken.collect::<Vec<_>>().len()
    }

    #[test]
    fn small_blobs_take_less_room_than_large_ones() {
        let counts = [0, 1, UNIT, UNIT + 1, 4 * UNIT, 8 * UNIT, u64::MAX].map(|size| at_a_time(512, size));
        assert_eq!(counts, [512, 512, 512, 256, 128, 64, 64]);
        assert_eq!([1, u64::MAX].map(|size| at_a_time(256, size)), [256, 32]);
        assert_eq!([1, u64::MAX].map(|size| at_a_time(1, size)), [8, 1]);
    }
}
