//! What the 64 bits of user data of a completion mean: operation, slot and the slot's generation.

use super::SocketId;

/// Slots fit 24 bits.
pub(super) const MAX_SOCKETS: u32 = 1 << 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Receive,
    Send,
    Cancel,
}

impl Operation {
    pub(super) fn user_data(self, id: SocketId) -> u64 {
        let code = match self {
            Self::Receive => 1,
            Self::Send => 2,
            Self::Cancel => 3,
        };
        u64::from(id.generation) << 32 | u64::from(id.slot) << 8 | code
    }

    pub(super) fn from_user_data(data: u64) -> Option<(Self, SocketId)> {
        let operation = match data & 0xff {
            1 => Self::Receive,
            2 => Self::Send,
            3 => Self::Cancel,
            _ => return None,
        };
        let id = SocketId {
            slot: u32::try_from(data >> 8 & 0xff_ffff).ok()?,
            generation: u32::try_from(data >> 32).ok()?,
        };
        Some((operation, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_goes_there_and_back() {
        for operation in [Operation::Receive, Operation::Send, Operation::Cancel] {
            for (slot, generation) in [(0, 0), (7, u32::MAX), (MAX_SOCKETS - 1, 1)] {
                let id = SocketId { slot, generation };
                assert_eq!(
                    Operation::from_user_data(operation.user_data(id)),
                    Some((operation, id))
                );
            }
        }
        assert_eq!(Operation::from_user_data(0), None);
    }
}
