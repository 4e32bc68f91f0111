/* Runs one input through a cfg in C Darknet and writes the outputs of all layers:
 *
 *     gcc -O2 -I DARKNET/include -I DARKNET/src driver.c -o driver -L DARKNET -l:libdarknet.so -lm -Wl,-rpath,DARKNET
 *     driver predict CFG WEIGHTS BATCH STEPS CALLS INPUT OUT
 *
 * BATCH and STEPS replace those of the cfg. INPUT: float32. OUT: for each layer an int32 count and its floats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "darknet.h"
#include "network.h"
#include "parser.h"

int main(int count, char **arguments)
{
    if (count != 9 || strcmp(arguments[1], "predict")) {
        fprintf(stderr, "usage: driver predict CFG WEIGHTS BATCH STEPS CALLS INPUT OUT\n");
        return 2;
    }
    network net = parse_network_cfg_custom(arguments[2], atoi(arguments[4]), atoi(arguments[5]));
    load_weights(&net, arguments[3]);
    size_t inputs = (size_t)net.inputs * net.batch;
    float *input = malloc(inputs * sizeof(float));
    FILE *file = fopen(arguments[7], "rb");
    if (!file || fread(input, sizeof(float), inputs, file) != inputs) return 1;
    fclose(file);
    for (int call = 0; call < atoi(arguments[6]); ++call) network_predict(net, input);
    file = fopen(arguments[8], "wb");
    for (int i = 0; i < net.n; ++i) {
        layer l = net.layers[i];
        int size = l.output ? l.outputs * l.batch : 0;
        fwrite(&size, sizeof size, 1, file);
        fwrite(l.output, sizeof(float), size, file);
    }
    return fclose(file);
}
