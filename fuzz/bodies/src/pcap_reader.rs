//! Target `pcap_reader`: any bytes as a capture, as `keepstate replay` reads it.

use keepstate_capture::capture_tracker::{CaptureTracker, FrameResult};
use keepstate_capture::{Capture, CorruptCapture};
use keepstate_engine::Sysctls;
use std::io::Cursor;
use std::path::Path;

/// Reads `data` to its end or its first error, and tracks every frame.
pub fn pcap_reader(data: &[u8]) {
    // A few bytes of gzip or zstd can decompress to a capture of any size: that they are detected is enough.
    let compressed = data.starts_with(&[0x1f, 0x8b]) || data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let Ok(mut capture) = Capture::from_reader(Cursor::new(data.to_vec()), Path::new("fuzz")) else { return };
    let mut follower = CaptureTracker::new(Sysctls::default(), [7; 16]);
    let (mut frames, mut bytes) = (0u64, 0);
    let read = capture.for_each_frame(|frame| {
        frames += 1;
        bytes += frame.data.len();
        if let FrameResult::Tracked(outcome) = follower.track_frame(&frame) {
            assert!(outcome.connection.is_none_or(|handle| follower.engine().entry(handle, follower.now()).is_some()));
        }
        Ok(frames < 4096)
    });
    follower.flush();
    assert_eq!(follower.frame_count, frames, "every frame is followed");
    assert!(compressed || bytes <= data.len(), "frames are bytes of the file");
    if let Err(error) = read {
        let broken = error.downcast_ref::<CorruptCapture>().expect("a capture that cannot be read on breaks somewhere");
        assert!(compressed || broken.offset <= data.len() as u64, "it breaks within the file");
    }
}
