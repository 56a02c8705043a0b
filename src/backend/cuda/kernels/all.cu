// Every kernel in one unit, for the emulation.
#include "probe.cu"
