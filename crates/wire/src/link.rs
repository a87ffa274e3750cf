//! Link layers: from a captured frame to the IP datagram in it.
