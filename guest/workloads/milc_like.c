/* milc-like: a stand-in for 433.milc of SPEC CPU2006.  Like milc it spends its time on sweeps over
   a four-dimensional lattice with SU(3) matrices on its links.  It is our own program; neither its
   code nor its input is milc's.

   It runs conjugate gradients for (m^2 - D^2) x = b on a SIDE^4 periodic lattice.  D is the
   staggered Dirac operator: D v(s) = 1/2 sum over directions d of
   phase_d(s) (U_d(s) v(s+d) - U_d(s-d)^+ v(s-d)), phase_d(s) = (-1)^(s_0 + ... + s_(d-1)).
   The matrices are random and made unitary.  The printed residual is the check sum. */
#include <complex.h>
#include <math.h>

#include "common.h"

enum { DIRECTIONS = 4, COLOURS = 3 };
static const char usage[] = "SIDE(even) ITERATIONS SEED";
static const double mass = 0.5;

typedef double complex matrix[COLOURS][COLOURS];
typedef double complex vector[COLOURS];

static size_t side, sites;
static matrix (*links)[DIRECTIONS];
static uint32_t (*forward)[DIRECTIONS], (*backward)[DIRECTIONS];
static int8_t (*phase)[DIRECTIONS];

/* Uniform in -1 .. 1. */
static double uniform(void) { return (double)(next64() >> 11) * 0x1p-52 - 1.0; }

static double complex product(double complex a, double complex b)
{
    /* Written out, because the compiler's own product tests for infinities. */
    return CMPLX(creal(a) * creal(b) - cimag(a) * cimag(b),
                 creal(a) * cimag(b) + cimag(a) * creal(b));
}

/* Make a random matrix of SU(3): two orthonormal rows and their conjugate cross product. */
static void random_link(matrix u)
{
    for (int row = 0; row < 2; row++) {
        for (int i = 0; i < COLOURS; i++) {
            double re = uniform(), im = uniform();
            u[row][i] = CMPLX(re, im);
        }
        double complex along = 0;
        for (int i = 0; row && i < COLOURS; i++)
            along += product(conj(u[0][i]), u[1][i]);
        double norm = 0;
        for (int i = 0; i < COLOURS; i++) {
            if (row)
                u[1][i] -= product(along, u[0][i]);
            norm += creal(product(u[row][i], conj(u[row][i])));
        }
        for (int i = 0; i < COLOURS; i++)
            u[row][i] /= sqrt(norm);
    }
    for (int i = 0; i < COLOURS; i++) {
        int j = (i + 1) % COLOURS, k = (i + 2) % COLOURS;
        u[2][i] = conj(product(u[0][j], u[1][k]) - product(u[0][k], u[1][j]));
    }
}

static void build(void)
{
    sites = side * side * side * side;
    links = allocate(sites, sizeof *links);
    forward = allocate(sites, sizeof *forward);
    backward = allocate(sites, sizeof *backward);
    phase = allocate(sites, sizeof *phase);
    for (size_t s = 0; s < sites; s++) {
        size_t stride = 1, parity = 0;
        for (int d = 0; d < DIRECTIONS; d++, stride *= side) {
            size_t at = s / stride % side;
            forward[s][d] = (uint32_t)(at + 1 < side ? s + stride : s - at * stride);
            backward[s][d] = (uint32_t)(at ? s - stride : s + (side - 1) * stride);
            phase[s][d] = parity & 1 ? -1 : 1;
            parity += at;
            random_link(links[s][d]);
        }
    }
}

/* to = D from */
static void dirac(vector *to, vector *from)
{
    for (size_t s = 0; s < sites; s++) {
        vector total = {0};
        for (int d = 0; d < DIRECTIONS; d++) {
            double half = 0.5 * phase[s][d];
            double complex *ahead = from[forward[s][d]], *behind = from[backward[s][d]];
            matrix *u = &links[s][d], *v = &links[backward[s][d]][d];
            for (int i = 0; i < COLOURS; i++) {
                double complex term = 0;
                for (int j = 0; j < COLOURS; j++)
                    term += product((*u)[i][j], ahead[j]) - product(conj((*v)[j][i]), behind[j]);
                total[i] += half * term;
            }
        }
        memcpy(to[s], total, sizeof total);
    }
}

static double norm(vector *v)
{
    double total = 0;
    for (size_t s = 0; s < sites; s++)
        for (int i = 0; i < COLOURS; i++)
            total += creal(v[s][i]) * creal(v[s][i]) + cimag(v[s][i]) * cimag(v[s][i]);
    return total;
}

int main(int argc, char **argv)
{
    side = (size_t)argument(argc, argv, 1, 2, 64, usage);
    long iterations = argument(argc, argv, 2, 1, 10000, usage);
    seed((uint64_t)argument(argc, argv, 3, 0, INT32_MAX, usage));
    if (side % 2)
        argument(0, argv, 1, 0, 0, usage); /* the phases need an even side */
    build();

    vector *x = allocate(sites, sizeof *x), *r = allocate(sites, sizeof *r);
    vector *p = allocate(sites, sizeof *p), *dp = allocate(sites, sizeof *dp);
    vector *ap = allocate(sites, sizeof *ap);
    for (size_t s = 0; s < sites; s++)
        for (int i = 0; i < COLOURS; i++) {
            double re = uniform(), im = uniform();
            p[s][i] = r[s][i] = CMPLX(re, im);
        }

    double residual = norm(r);
    for (long n = 0; n < iterations; n++) {
        dirac(dp, p);
        dirac(ap, dp);
        /* D is anti-Hermitian, so p.(m^2 - D^2)p = m^2 |p|^2 + |Dp|^2. */
        double step = residual / (mass * mass * norm(p) + norm(dp));
        for (size_t s = 0; s < sites; s++)
            for (int i = 0; i < COLOURS; i++) {
                x[s][i] += step * p[s][i];
                r[s][i] -= step * (mass * mass * p[s][i] - ap[s][i]);
            }
        double now = norm(r), ratio = now / residual;
        for (size_t s = 0; s < sites; s++)
            for (int i = 0; i < COLOURS; i++)
                p[s][i] = r[s][i] + ratio * p[s][i];
        residual = now;
    }
    printf("solution %.9e checksum %.9e\n", norm(x), residual);
    return 0;
}
