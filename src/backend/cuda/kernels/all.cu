// Every kernel in one unit, for the emulation.
#include "probe.cu"
#include "sae_encode.cu"
#include "sae_select.cu"
#include "sae_batch_top.cu"
#include "sae_decode.cu"
#include "sae_rows.cu"
#include "sae_close.cu"
#include "sae_update.cu"
