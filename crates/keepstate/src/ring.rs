//! A ring of captured frames shared with the kernel (AF_PACKET, TPACKET_V3).
