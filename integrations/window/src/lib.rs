//! A picture whose pixels attend to each other, drawn as it attends: the weights never leave the GPU.
//!
//! One frame is one encoder: attention of the pixel under the pointer against all others, then a draw whose shader
//! reads the weights where attention wrote them. The device, the queue and every buffer are the application's.

pub mod gaze;
pub mod scene;
