//! Reading results back while the device works on.

#[cfg(feature = "cube")]
use std::{future::Future, pin::Pin};

use burn::tensor::{Int, Tensor};

use crate::KernelError;

/// An int32 tensor on its way to the host. The copy is ordered behind the work queued before
/// [`PendingRead::start`]; work queued later, even over the same buffer, does not change it.
pub struct PendingRead(Inner);

enum Inner {
    Ready(Result<Vec<i32>, KernelError>),
    #[cfg(feature = "cube")]
    Device(Pin<Box<dyn Future<Output = Result<Vec<i32>, KernelError>>>>),
}

impl std::fmt::Debug for PendingRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PendingRead")
    }
}

impl PendingRead {
    /// Queues the copy of a contiguous int32 tensor.
    pub fn start(tensor: Tensor<2, Int>) -> Self {
        #[cfg(feature = "cube")]
        if let Ok(primitive) = tensor.clone().try_into_primitive::<burn_cubecl::CubeBackend>() {
            // The copy borrows its client, which is a handle that lives as long as the process.
            let copy = client_of(&primitive).read_async(vec![primitive.handle]);
            return Self(Inner::Device(Box::pin(async move {
                let bytes = copy.await.map_err(|e| KernelError::Read { problem: format!("{e:?}") })?;
                let bytes = bytes.first().ok_or_else(|| KernelError::Read { problem: "no buffer came back".into() })?;
                Ok(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            })));
        }
        let data = tensor.try_into_data().map_err(|e| KernelError::Read { problem: format!("{e:?}") });
        Self(Inner::Ready(data.and_then(|data| {
            data.as_slice::<i32>().map(<[i32]>::to_vec).map_err(|e| KernelError::Read { problem: format!("{e:?}") })
        })))
    }

    /// Waits for the values.
    ///
    /// # Errors
    /// [`KernelError::Read`] when the device failed.
    pub fn wait(self) -> Result<Vec<i32>, KernelError> {
        match self.0 {
            Inner::Ready(values) => values,
            #[cfg(feature = "cube")]
            Inner::Device(copy) => burn::tensor::read_sync(copy),
        }
    }
}

/// The client of a tensor's device, kept for the life of the thread's process: one small handle a
/// device.
#[cfg(feature = "cube")]
fn client_of(tensor: &burn_cubecl::tensor::CubeTensor) -> &'static cubecl::client::Client {
    use std::cell::RefCell;
    type Clients = Vec<(burn_cubecl::CubeDevice, &'static cubecl::client::Client)>;
    thread_local!(static CLIENTS: RefCell<Clients> = const { RefCell::new(Vec::new()) });
    CLIENTS.with_borrow_mut(|clients| match clients.iter().find(|(device, _)| *device == tensor.device) {
        Some((_, client)) => client,
        None => {
            let client: &'static _ = Box::leak(Box::new(tensor.client.clone()));
            clients.push((tensor.device.clone(), client));
            client
        }
    })
}
