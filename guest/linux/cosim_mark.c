/* cosim-mark LABEL: set a mark where a session can start or end. */
#include "rt.h"

int main(int argc, char **argv)
{
    if (argc != 2 || !argv[1][0] || length(argv[1]) > 32) {
        print("usage: cosim-mark LABEL (1 to 32 characters)\n");
        return 2;
    }
    mark(argv[1]);
    return 0;
}
