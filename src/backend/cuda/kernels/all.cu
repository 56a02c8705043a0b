// Every kernel in one unit, for the emulation.
#include "probe.cu"
#include "draw_columns.cu"
#include "draw_live.cu"
#include "draw_probe.cu"
#include "draw_skips.cu"
#include "hidden.cu"
#include "linked_descend.cu"
#include "linked_screen.cu"
