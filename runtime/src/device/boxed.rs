//! Whatever backend was loaded.

use super::{Around, Backend, Beside, DeviceError, Executed, Mark, MemoryUse, ReadTimes, Recording};
use hipc_ir::plan::{Buffer, Plan};
use std::ops::Range;

impl Backend for Box<dyn Backend> {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        (**self).write(buffer, offset, bytes)
    }
    fn read(&mut self, buffer: Buffer, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        (**self).read(buffer, offset, bytes)
    }
    fn forget(&mut self, buffer: Buffer, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        (**self).forget(buffer, offset, bytes)
    }
    fn watch(&mut self, on: bool) {
        (**self).watch(on);
    }
    fn run(&mut self, program: usize, range: Range<usize>) -> Result<(), DeviceError> {
        (**self).run(program, range)
    }
    fn record(&mut self, program: usize, range: Range<usize>, repeat: u32) -> Result<Recording, DeviceError> {
        (**self).record(program, range, repeat)
    }
    fn record_launches(&mut self, program: usize, launches: &[usize], repeat: u32) -> Result<Recording, DeviceError> {
        (**self).record_launches(program, launches, repeat)
    }
    fn replay(&mut self, recording: &Recording) -> Result<(), DeviceError> {
        (**self).replay(recording)
    }
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        (**self).mark()
    }
    fn elapsed(&mut self, from: &Mark, to: &Mark) -> Result<f64, DeviceError> {
        (**self).elapsed(from, to)
    }
    fn receive(&mut self, index: usize, generation: i32) -> Result<i32, DeviceError> {
        (**self).receive(index, generation)
    }
    fn memory_use(&self) -> Result<MemoryUse, DeviceError> {
        (**self).memory_use()
    }
    fn read_memory(&mut self, bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
        (**self).read_memory(bytes, times)
    }
    fn works_ahead(&self) -> bool {
        (**self).works_ahead()
    }
    fn around(&self) -> Around {
        (**self).around()
    }
    fn beside(&mut self, buffer: Buffer) -> Result<Option<Beside>, DeviceError> {
        (**self).beside(buffer)
    }
    fn executed(&self) -> Option<Executed> {
        (**self).executed()
    }
    fn plan(&self) -> &Plan {
        (**self).plan()
    }
}
