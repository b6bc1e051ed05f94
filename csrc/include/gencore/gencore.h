// Everything a C++ program needs.
#pragma once

#include "gencore/autoregressive.h"
#include "gencore/conv.h"
#include "gencore/dense.h"
#include "gencore/dense_loss.h"
#include "gencore/error.h"
#include "gencore/model_file.h"
#include "gencore/op.h"
#include "gencore/optim.h"
#include "gencore/pixels.h"
#include "gencore/random.h"
#include "gencore/rbm.h"
#include "gencore/recurrent.h"
#include "gencore/runtime.h"
#include "gencore/sample.h"
#include "gencore/view.h"
