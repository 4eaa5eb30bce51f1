/* What C code may expect of a program: a constructor, variables of each thread, a stack guard. */

static int started;
static __thread int filled = 40;
static __thread int zero;

__attribute__((constructor)) static void start(void)
{
    started++;
}

/* How often the constructor has run. */
int part_started(void)
{
    return started;
}

/* Adds to this thread's two variables, and returns their sum. */
int part_count(int to_filled, int to_zero)
{
    filled += to_filled;
    zero += to_zero;
    return filled + zero;
}

/* Reverses up to 64 bytes by a buffer on the stack, which has a guard. */
void part_reverse(unsigned char *bytes, unsigned long len)
{
    volatile unsigned char copy[64];
    unsigned long i;
    if (len > sizeof copy)
        len = sizeof copy;
    for (i = 0; i < len; i++)
        copy[i] = bytes[i];
    for (i = 0; i < len; i++)
        bytes[i] = copy[len - 1 - i];
}
