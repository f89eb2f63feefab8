//! A device that the application opened: Burn, the engine and the application on one queue.

mod common;

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use common::{Numbers, burns, same};
use heedful_burn::heedful::wgpu;
use heedful_burn::{Attend, engine, share};

#[test]
fn a_setup_of_the_applications_is_shared_by_all_three() {
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter =
        pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    // What Burn asks of a device: everything that there is.
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() - wgpu::Features::all_experimental_mask(),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device: device.clone(), queue, backend };
    let burns_device = Device::wgpu_options().setup(setup.clone()).init().expect("Burn's runtime");
    share(&burns_device, &setup).expect("an engine");
    // A second time it is the same engine.
    share(&burns_device, &setup).expect("an engine");
    let ours = engine(&burns_device).expect("an engine");
    assert_eq!(ours.device(), &device, "nobody opened another");

    let tensors = burns_device.autodiff();
    let mut numbers = Numbers::new(1);
    let [q, k, v] = [0; 3].map(|_| numbers.tensor_on([1, 2, 9, 4], &tensors).require_grad());
    let found = Attend::new(q.clone(), k.clone(), v.clone()).run().expect("a call").o;
    let wanted = burns([q.clone(), k, v], 0.5, None, None);
    same("o", found.clone(), wanted.clone());
    let [found, wanted] = [found, wanted].map(|o| q.grad(&o.sum().backward()).expect("a gradient"));
    same("gradient of q", found, wanted);
}
