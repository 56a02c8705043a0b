// Every kernel in one unit, for the emulation.
#include "probe.cu"
#include "toy_lane.cu"
#include "toy_warp.cu"
#include "toy_block.cu"
#include "toy_layers.cu"
#include "toy_loss.cu"
#include "toy_pack.cu"
