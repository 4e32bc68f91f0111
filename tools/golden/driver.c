/* Runs a cfg in C Darknet and writes what its layers hold: figures for tests/golden/layers.json.

   driver predict CFG WEIGHTS BATCH STEPS CALLS INPUT OUT         outputs of all layers after CALLS calls
   driver train CFG WEIGHTS INPUT TRUTH OUT                       outputs and weight updates of one training pass

   OUT: per layer an int32 count and its floats; with train, per layer also its weight, bias and scale updates.
   Link with the object files of AlexeyAB/darknet (all but darknet.o); with -DPJREDDIE against pjreddie's library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "darknet.h"
#ifndef PJREDDIE
#include "network.h"
#include "parser.h"
#endif

static void put(FILE *out, const float *values, int count)
{
    if (!values) count = 0;
    fwrite(&count, sizeof count, 1, out);
    fwrite(values, sizeof(float), count, out);
}

static float *get(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    *count = ftell(file) / sizeof(float);
    rewind(file);
    float *values = malloc(*count * sizeof(float));
    if (fread(values, sizeof(float), *count, file) != *count) exit(3);
    fclose(file);
    return values;
}

#ifdef PJREDDIE
int main(int argc, char **argv)
{
    size_t count;
    network *net = load_network(argv[2], argv[3], 0);
    set_batch_network(net, atoi(argv[4]));
    float *input = get(argv[7], &count);
    FILE *out = fopen(argv[8], "wb");
    for (int call = 0; call < atoi(argv[6]); ++call) network_predict(net, input + call * net->inputs * net->batch);
    for (int i = 0; i < net->n; ++i) put(out, net->layers[i].output, net->layers[i].outputs * net->batch);
    return fclose(out);
}
#else
static int weights_of(layer l)
{
    if (!l.weight_updates) return 0;
    if (l.type == CONNECTED) return l.inputs * l.outputs;
    if (l.type == LOCAL) return l.size * l.size * l.c * l.n * l.out_h * l.out_w;
    return l.nweights;
}

int main(int argc, char **argv)
{
    size_t count;
    int train = !strcmp(argv[1], "train");
    network net = train ? parse_network_cfg(argv[2]) : parse_network_cfg_custom(argv[2], atoi(argv[4]), atoi(argv[5]));
    load_weights(&net, argv[3]);
    *net.seen = 0;
    *net.cur_iteration = 0;
    float *input = get(argv[train ? 4 : 7], &count);
    FILE *out = fopen(argv[train ? 6 : 8], "wb");
    if (train) {
        network_state state = {0};
        state.net = net;
        state.input = input;
        state.truth = get(argv[5], &count);
        state.train = 1;
        state.workspace = net.workspace;
        forward_network(net, state);
        backward_network(net, state);
    } else {
        for (int call = 0; call < atoi(argv[6]); ++call) network_predict(net, input + call * net.inputs * net.batch);
    }
    for (int i = 0; i < net.n; ++i) {
        layer l = net.layers[i];
        put(out, l.output, l.outputs * net.batch);
        if (!train) continue;
        put(out, l.weight_updates, weights_of(l));
        put(out, l.type == CONVOLUTIONAL ? l.bias_updates : 0, l.n);
        put(out, l.type == CONVOLUTIONAL && l.batch_normalize ? l.scale_updates : 0, l.n);
    }
    return fclose(out);
}
#endif
