/* A function that the C compiler protects against writes beyond an array on its stack. */

/* Calls `f` with the address of 64 bytes of its own stack. */
void NAME(void (*f)(char *))
{
    char bytes[64];
    for (int i = 0; i < 64; i++)
        ((volatile char *)bytes)[i] = 0;
    f(bytes);
    __asm__ volatile("" : : "r"(bytes) : "memory");
}
